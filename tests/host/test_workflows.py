"""The shipped workflows: laid out to be read, and run as they are but for the base, the photos and the size of the job.

"Train a subject (DreamBooth or LoRA)" is the demo's; the study's is run in test_method.py.
"""

import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from demo.run import node
from tools.server import Failed, Refused
from trainer.run.run_dir import RunDir

from .graphs import picture_graph, same, shown

WORKFLOWS = Path(__file__).parents[2] / "workflows"
API = WORKFLOWS / "api"
SMALL = {
    "CheckpointLoaderSimple": {"ckpt_name": "standin.safetensors"},
    "DatasetLoader": {"resolution": 64},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "TextualInversionTrain": {"steps": 3, "learning_rate": 0.3},
    "DreamBoothTrain": {"preset": "own settings", "steps": 2, "learning_rate": 1e-3},
    "KSampler": {"steps": 4, "cfg": 1.0},
}
TITLE = 30
"""Height of a node's title, which is drawn above its position."""
WITH_PANEL = {"DatasetLoader": 170 + 420, "CaptionWithToken": 146 + 420, "LoadFinetuned": 118 + 430, "EvaluateSubject": 330 + 220}
"""Height of the nodes with all that our page adds below their widgets."""
PANEL = {"DreamBoothTrain": 480, "TextualInversionTrain": 480}
"""The same below nodes that are saved as high as the widgets that they show, which depend on their values."""


def small(name: str) -> dict:
    """The workflow on the stand-in and the drawn photos: 64 pixels, few steps, rates at which the stand-in learns."""
    graph = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    for n in graph.values():
        n["inputs"] |= SMALL.get(n["class_type"], {})
        if n["inputs"].get("folder") == "my-photos":
            n["inputs"]["folder"] = "plush"
        if n["class_type"] == "DreamBoothTrain":
            n["inputs"]["name"] = name.partition(" (")[0]
    return graph


def rectangle(n: dict) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a node in the page, with its title and the panel it will have."""
    (x, y), (width, height) = n["pos"], n["size"]
    return x, y - TITLE, x + width, y + max(height + PANEL.get(n["type"], 0), WITH_PANEL.get(n["type"], 0))


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_workflow_is_laid_out_to_be_read(path):
    """No node covers another, also when the panels are there; all but the note lie in a group."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    nodes = {f"{n['id']} {n.get('title', n['type'])}": n for n in graph["nodes"]}
    places = {name: rectangle(n) for name, n in nodes.items()}
    covered = [
        (one, two)
        for (one, a), (two, b) in combinations(places.items(), 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]
    assert covered == []
    groups = [(x, y, x + width, y + height) for x, y, width, height in (g["bounding"] for g in graph["groups"])]
    outside = {
        nodes[name]["type"]
        for name, (left, top, right, bottom) in places.items()
        if not any(x <= left and y <= top and right <= x2 and bottom <= y2 for x, y, x2, y2 in groups)
    }
    assert outside <= {"MarkdownNote"}
    for n in graph["nodes"]:
        assert "subject_trainer_run" not in n["properties"]  # its author's last run, which older versions saved
        assert n["type"] != "KSampler" or n["widgets_values"][1] == "fixed"


@pytest.fixture(scope="module")
def pivotal(server):
    graph = small("Train an embedding and then the model (pivotal tuning)")
    graph[node(graph, "DreamBoothTrain")]["inputs"]["name"] = "my plush"  # a blank ends an embedding's name in a prompt
    return graph, server.run(graph)


def exported(graph: dict, result, class_type: str) -> str:
    return result.outputs[node(graph, class_type)]["text"][0].splitlines()[-1]


def test_inversion_then_dreambooth_gives_both(server, pivotal, base_directory):
    graph, result = pivotal
    run_id = exported(graph, result, "DreamBoothTrain").removesuffix(".safetensors")
    embeddings = base_directory / "models" / "embeddings"
    first = load_file(embeddings / exported(graph, result, "TextualInversionTrain"))["emb_params"]
    word = run_id.replace(" ", "-")
    then = load_file(embeddings / f"{word}.safetensors")["emb_params"]
    assert first.shape == then.shape == (2, 768)
    assert 0 < np.abs(then - first).max() < 0.01  # it went on from there: two steps of 1e-3

    picture = shown(server, result, node(graph, "SaveImage"))
    prompt = graph[node(graph, "PrimitiveStringMultiline")]["inputs"]["value"].replace("SUBJECT", "mysks plush toy")

    def sampled(loader: dict, text: str | list):
        return shown(server, server.run(picture_graph(loader, text, steps=4)), "save")

    # LoadFinetuned gives the model and the word; ComfyUI's own loader and `embedding:` do too.
    loaded = {"class_type": "LoadFinetuned", "inputs": {"run": run_id}}
    assert same(sampled(loaded, prompt), picture)
    # So does its file, in place of a run; and that of the inversion gives the base and the word as it was then.
    by_file = {"class_type": "LoadFinetuned", "inputs": {"run": "", "path": f"{run_id}.safetensors"}}
    assert same(sampled(by_file, prompt), picture)
    assert same(sampled(by_file, ["loader", 3]), sampled(loaded, ["loader", 3]))
    built_in = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"{run_id}.safetensors"}}
    assert same(sampled(built_in, prompt.replace("mysks", f"embedding:{word}")), picture)
    assert not same(sampled(built_in, prompt), picture)
    assert same(sampled(loaded, ["loader", 3]), sampled(loaded, "mysks plush toy"))


def test_the_clip_of_an_inversion_is_enough_to_train_on_from_it(server, pivotal, base_directory):
    """Wired to DreamBoothTrain, it brings its word along."""
    graph, result = pivotal
    by_clip = json.loads(json.dumps(graph))
    train = by_clip[node(by_clip, "DreamBoothTrain")]["inputs"]
    train |= {"embedding": "", "clip": [node(by_clip, "TextualInversionTrain"), 0]}
    run_id = exported(graph, result, "DreamBoothTrain")
    assert exported(by_clip, server.run(by_clip), "DreamBoothTrain") == run_id  # the same run, found again


def test_only_embeddings_of_comfyuis_folders_are_read(server, pivotal, base_directory):
    secret = base_directory / "models" / "secret.safetensors"
    save_file({"emb_params": np.zeros((1, 768), dtype=np.float32)}, secret)
    graph = json.loads(json.dumps(pivotal[0]))
    for name in ("../secret", str(secret), "nothing"):
        graph[node(graph, "DreamBoothTrain")]["inputs"]["embedding"] = name
        with pytest.raises(Failed, match=f"no embedding '{name}' that can be read"):
            server.run(graph)


@pytest.mark.parametrize("tensors", [{}, {"a": np.zeros(())}, {"a": np.zeros((2, 2, 768))}, {"a": np.zeros((1, 1024))}])
def test_files_that_are_no_embedding_are_named(server, pivotal, base_directory, tensors):
    save_file(tensors, base_directory / "models" / "embeddings" / "strange.safetensors")
    graph = json.loads(json.dumps(pivotal[0]))
    graph[node(graph, "DreamBoothTrain")]["inputs"]["embedding"] = "strange"
    with pytest.raises(Failed, match="embedding 'strange'"):
        server.run(graph)


def test_methods_are_compared_in_a_labelled_grid(server, base_directory):
    graph = small("Compare DreamBooth with Textual Inversion")
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"train": "lora", "steps": 6, "learning_rate": 0.02}
    result = server.run(graph)
    grid = np.asarray(shown(server, result, node(graph, "SaveImage")), dtype=float)
    assert grid.shape == (64 + 8 + 64, 64 + 8 + 64 + 8 + 64, 3)
    cells = [[grid[72 * row : 72 * row + 64, 72 * column : 72 * column + 64] for column in range(3)] for row in range(2)]
    for row in cells:
        for one, two in ((0, 1), (1, 2), (0, 2)):  # three methods, three pictures: below the labels too
            assert np.abs(row[one][24:] - row[two][24:]).max() > 2
    assert np.abs(cells[0][0] - cells[1][0]).max() > 2  # two seeds
    run = next((base_directory / "output" / "finetune").glob("Compare DreamBooth with Textual Inversion-*"))
    assert RunDir(run).load_run().embedding == ""


def test_an_inversion_is_drawn_beside_the_base(server, base_directory):
    graph = small("Train an embedding (Textual Inversion)")
    result = server.run(graph)
    assert (base_directory / "models" / "embeddings" / exported(graph, result, "TextualInversionTrain")).is_file()
    without, with_token = (shown(server, result, node(graph, "SaveImage", f"{which} the token")) for which in ("without", "with"))
    assert without.size == with_token.size == (64, 64)
    assert not same(without, with_token)


def test_a_finished_run_is_loaded_and_its_trigger_goes_into_the_prompt(server, pivotal):
    trained, first = pivotal
    graph = small("Make pictures of a trained subject")
    with pytest.raises(Refused, match="no finished run"):  # as shipped, it names none
        server.run(graph)
    graph[node(graph, "LoadFinetuned")]["inputs"]["run"] = exported(trained, first, "DreamBoothTrain").removesuffix(
        ".safetensors"
    )
    picture = shown(server, server.run(graph), node(graph, "SaveImage"))
    assert same(picture, shown(server, first, node(trained, "SaveImage")))


def test_texts_for_the_photos_become_captions(server, base_directory, photo_folder):
    """With texts of our own in place of the vision model's, which no test can have."""
    wordless = base_directory / "input" / "wordless"
    wordless.mkdir()
    for photo in photo_folder.glob("*.jpg"):
        shutil.copy(photo, wordless)
    graph = small("Caption photos with a vision model")
    describe, first = node(graph, "TextGenerate"), node(graph, "DatasetLoader", "without captions")
    assert graph[describe]["inputs"]["image"] == [first, 1]
    del graph[node(graph, "CLIPLoader")]
    lines = "\n".join(f"a plush toy in place {number}" for number in range(4))
    graph[describe] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": lines}, "_meta": {"title": "Texts"}}
    for n in graph.values():
        if n["class_type"] == "DatasetLoader":
            n["inputs"]["folder"] = "wordless"
    shown = server.run(graph).outputs[node(graph, "DatasetLoader", "with captions")]
    assert shown["text"][0].startswith("4 photos, 4 captions, ready")
    assert [*shown["panel"][0]["captions"].values()] == lines.splitlines()


@pytest.mark.nightly
def test_a_lora_is_drawn_at_two_strengths(server):
    graph = small("Train a LoRA (character, object, style)")
    train = graph[node(graph, "DreamBoothTrain")]["inputs"]
    train |= {"class_images": 1, "learning_rate": 0.01}
    result = server.run(graph)
    both = np.asarray(shown(server, result, node(graph, "SaveImage")), dtype=float)
    assert both.shape == (64, 64 + 8 + 64, 3)
    assert np.abs(both[24:, :64] - both[24:, 72:]).max() > 2  # below the labels


def test_class_pictures_made_in_the_graph_are_trained_beside(server, base_directory):
    """In groups that fit a card's memory, each picture from noise of its own."""
    graph = small("Train a subject and keep its class (class images)")
    graph[node(graph, "EmptyLatentImage", "in all")]["inputs"]["batch_size"] = 3
    graph[node(graph, "RebatchLatents")]["inputs"]["batch_size"] = 2
    graph[node(graph, "DreamBoothTrain")]["inputs"]["train"] = "lora"
    result = server.run(graph)
    assert result.outputs[node(graph, "DatasetLoader", "of the class")]["text"][0].startswith("3 photos, 0 captions, ready")
    (path,) = (base_directory / "output" / "finetune").glob("Train a subject and keep its class-*")
    run = RunDir(path).load_run()
    assert len({Path(photo.path).read_bytes() for photo in run.class_dataset.photos}) == 3
    assert {photo.caption for photo in run.class_dataset.photos} == {"a photo of a plush toy"}
    assert run.settings.dreambooth.prior_loss_weight == 1
    assert all(shown(server, result, i).size == (64, 64) for i, n in graph.items() if n["class_type"] == "SaveImage")
