"""Textual Inversion in a real server."""

import numpy as np
import pytest
from safetensors.numpy import load as load_bytes
from safetensors.numpy import load_file as load
from safetensors.numpy import save_file as save

from tools.server import Refused

from .graphs import picture_graph, same, shown, train_node

BASE = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}


def training_graph(**changes) -> dict:
    photos = {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}}
    return {"loader": BASE, "photos": photos, "train": train_node(**changes)}


def picture(loader: dict, prompt: str, clip: list | None = None) -> dict:
    return picture_graph(loader, prompt, clip, steps=4)


@pytest.fixture(scope="module")
def trained(server):
    """Training and a picture with the node's own CLIP and bare token, in one graph."""
    graph = training_graph() | picture(BASE, "a photo of inverted by a lake", clip=["train", 0])
    graph["text"] = {"class_type": "PreviewAny", "inputs": {"source": ["train", 1]}}
    return server.run(graph)


def test_the_file_works_as_an_embedding_in_a_plain_prompt(server, trained, base_directory):
    assert (base_directory / "models" / "embeddings" / "inverted.safetensors").is_file()
    pictures = {
        prompt: shown(server, server.run(picture(BASE, f"a photo of {prompt} by a lake")), "save")
        for prompt in ("embedding:inverted", "toy", "inverted")
    }
    assert not same(pictures["embedding:inverted"], pictures["toy"])
    assert not same(pictures["embedding:inverted"], pictures["inverted"])  # a plain CLIP does not know the bare word
    assert same(pictures["embedding:inverted"], shown(server, trained, "save"))  # the node's CLIP does


def test_the_prompt_text_is_what_any_clip_understands(server, trained):
    assert trained.outputs["text"]["text"] == ["embedding:inverted toy"]


@pytest.mark.parametrize(
    ("bare", "spelled"),
    [
        ("a (inverted:1.3) thing", "a (embedding:inverted:1.3) thing"),
        pytest.param("Inverted, by a lake", "embedding:inverted , by a lake", marks=pytest.mark.nightly),
        ("a photo of invertedly", "a photo of invertedly"),
        pytest.param("embedding:inverted again", "embedding:inverted again", marks=pytest.mark.nightly),
    ],
)
def test_the_bare_token_means_the_embedding(server, trained, bare, spelled):
    graph = training_graph() | picture(BASE, bare, clip=["train", 0])
    taught = shown(server, server.run(graph), "save")
    plain = shown(server, server.run(picture(BASE, spelled)), "save")
    assert same(taught, plain)


def test_the_base_is_untouched(server, trained, start_server):
    """The model that was in memory while the inversion trained still samples as a freshly started server does."""
    graph = picture_graph(BASE, "a photo of a toy")
    graph["sample"]["inputs"]["seed"] = 2  # not yet in ComfyUI's cache
    with start_server() as fresh:
        assert same(shown(server, server.run(graph), "save"), shown(fresh, fresh.run(graph), "save"))


def test_load_finetuned_gives_the_base_and_a_clip_that_knows_the_token(server, trained):
    run = next(r for r in _runs(server) if r.startswith("inverted-"))
    loader = {"class_type": "LoadFinetuned", "inputs": {"run": run}}
    loaded = shown(server, server.run(picture(loader, "a photo of inverted by a lake")), "save")
    assert same(loaded, shown(server, trained, "save"))


def _runs(server) -> list[str]:
    return server.get("/object_info/LoadFinetuned")["LoadFinetuned"]["input"]["required"]["run"][1]["options"]


@pytest.mark.nightly
def test_a_file_that_another_run_has_made_is_not_taken_for_the_result(server, base_directory):
    """Run A's file is deleted and run B takes its name: queueing A again trains A, and does not give B's word."""
    embeddings = base_directory / "models" / "embeddings"
    first = training_graph(token="swapped", steps=2)
    server.run(first)
    vectors = (embeddings / "swapped.safetensors").read_bytes()
    (embeddings / "swapped.safetensors").unlink()
    server.run(training_graph(token="swapped", steps=2, seed=9))
    first["train"]["inputs"]["checkpoint_every"] = 499  # decides nothing, but ComfyUI's own cache does not know
    file = server.run(first).outputs["train"]["text"][0].splitlines()[-1]
    assert file != "swapped.safetensors"
    assert load(embeddings / file)["emb_params"] == pytest.approx(load_bytes(vectors)["emb_params"])


def test_captions_with_the_token_of_another_node_are_refused(server):
    graph = training_graph(dataset=["captions", 0])
    inputs = {"dataset": ["photos", 0], "token": "mysks", "class_word": "toy", "template": "a photo of {token}"}
    graph["captions"] = {"class_type": "CaptionWithToken", "inputs": inputs}
    with pytest.raises(Refused, match="token 'mysks', this node trains 'inverted'"):
        server.run(graph)


def test_training_starts_from_an_embedding_file_finds_it_changed_and_overwrites_nothing(server, trained, base_directory):
    """Named as in a prompt; the number of vectors is the file's. Another file under the name is another run.

    Its token is the same, and it overwrites nothing.
    """
    embeddings = base_directory / "models" / "embeddings"
    files, written = [], []
    for seed in (0, 1):
        given = np.random.default_rng(seed).standard_normal((2, 768), dtype=np.float32)
        save({"anything": given}, embeddings / "given.safetensors")
        graph = training_graph(token="started", initializer="embedding:given", learning_rate=1e-60, steps=1)
        files.append(server.run(graph).outputs["train"]["text"][0].splitlines()[-1])
        assert np.array_equal(load(embeddings / files[-1])["emb_params"], given)
        written.append((embeddings / "started.safetensors").read_bytes())
    assert files[0] == "started.safetensors"
    assert files[1].startswith("started-")
    assert written[0] == written[1]


def test_a_word_that_is_taken_is_told_before_and_after_training(server, trained, base_directory):
    nested = base_directory / "models" / "embeddings" / "old"
    nested.mkdir()
    save({"emb_params": np.zeros((1, 768), dtype=np.float32)}, nested / "Cat.safetensors")
    texts = []
    result = server.run(training_graph(token="cat", steps=1), on_text=lambda _, text: texts.append(text))
    for note in ("'cat' is a common word", "An embedding old/Cat.safetensors is there already"):
        assert note in texts[0]
        assert note in result.outputs["train"]["text"][0]
    assert result.outputs["train"]["text"][0].splitlines()[-1].startswith("cat-")
