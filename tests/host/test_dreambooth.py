"""DreamBooth in a real server: what the node shows, writes, finds again and refuses."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from demo.run import node
from tools.server import Refused
from trainer.run.run_dir import RunDir

from .graphs import picture_graph, same, shown, up_to_training

SHARED_PHOTOS = Path(__file__).parents[3] / "shared" / "dreambench" / "grey_sloth_plushie"


def files(base_directory: Path) -> set[Path]:
    """Everything that training writes."""
    return {p for folder in ("finetune", "checkpoints") for p in (base_directory / "output" / folder).glob("**/*")}


def test_training_shows_phase_step_loss_and_time_left(server, quick_graph):
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"] |= {"name": "progress", "steps": 12}
    train = node(quick_graph, "DreamBoothTrain")
    texts = []
    server.run(up_to_training(quick_graph), on_text=lambda node_id, text: texts.append((node_id, text)))
    assert {node_id for node_id, _ in texts} == {train}
    words = " | ".join(text for _, text in texts)
    for part in (
        "own settings: model, AdamW, batch 4, 12 steps for 4 photos; about",
        "Saving the base model",
        "Encoding instance photos: 4 of 4",
        "Training: step",
        "loss 0.",
        "Exporting",
    ):
        assert part in words
    assert "s left" in words


def test_the_loader_shows_exactly_what_training_sees(server, quick_graph, base_directory):
    result = server.run(quick_graph)
    loader, preview = node(quick_graph, "DatasetLoader"), node(quick_graph, "PreviewImage")
    pictures = [server.image(image) for image in result.outputs[preview]["images"]]
    assert [p.size for p in pictures] == [(64, 64)] * 4
    first = Image.open(base_directory / "input" / "plush" / "plush-1.jpg").resize((64, 64), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(pictures[0].convert("RGB"), dtype=int) - np.asarray(first)).max() <= 1
    assert result.outputs[loader]["text"] == ["4 photos, 4 captions, ready"]


def test_the_captions_and_the_pieces_of_the_token_are_shown(server, quick_graph):
    result = server.run(quick_graph)
    (text,) = result.outputs[node(quick_graph, "CaptionWithToken")]["text"]
    assert text.splitlines()[:2] == [
        "CLIP reads 'mysks' → my + sks",
        "plush-1.jpg: a photo of mysks plush toy on a meadow",
    ]


def test_a_finished_run_is_loaded_everywhere_and_never_trained_again(server, start_server, quick_graph, base_directory):
    train, save = node(quick_graph, "DreamBoothTrain"), node(quick_graph, "SaveImage", "after training")
    quick_graph[train]["inputs"]["name"] = "again"
    quick_graph[node(quick_graph, "KSampler", "(after)")]["inputs"]["steps"] = 25
    first = server.run(quick_graph)
    picture = shown(server, first, save)
    file = first.outputs[train]["text"][0].splitlines()[-1]
    written = files(base_directory)

    repeated = server.run(quick_graph)
    assert train not in repeated.seconds  # ComfyUI's own cache
    with start_server() as restarted:
        again = restarted.run(quick_graph)
        print(f"\nnode time of the finished run after a restart: {again.seconds[train]:.1f} s")
        assert again.seconds[train] < 5
        assert same(shown(restarted, again, save), picture)

        runs = restarted.get("/object_info/LoadFinetuned")["LoadFinetuned"]["input"]["required"]["run"][1]["options"]
        assert runs[0] == Path(file).stem  # the newest first
        prompt = quick_graph[node(quick_graph, "PrimitiveStringMultiline")]["inputs"]["value"].replace(
            "SUBJECT", "mysks plush toy"
        )
        for loader in (
            {"class_type": "LoadFinetuned", "inputs": {"run": runs[0]}},
            {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": file}},
        ):
            result = restarted.run(picture_graph(loader, prompt))
            assert same(shown(restarted, result, "save"), picture), loader
    assert files(base_directory) == written


def test_the_trigger_text_is_token_and_class(server, quick_graph):
    train = node(quick_graph, "DreamBoothTrain")
    file = server.run(up_to_training(quick_graph)).outputs[train]["text"][0].splitlines()[-1]
    preview = {
        "1": {"class_type": "LoadFinetuned", "inputs": {"run": Path(file).stem}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 3]}},
    }
    assert server.run(preview).outputs["2"]["text"] == ["mysks plush toy"]


def test_a_learning_rate_of_zero_exports_exactly_the_base(server, quick_graph, base_directory):
    train = node(quick_graph, "DreamBoothTrain")
    quick_graph[train]["inputs"] |= {"name": "zero", "steps": 1, "lr_warmup_steps": 1}  # it rises from 0, and there it ends
    file = server.run(up_to_training(quick_graph)).outputs[train]["text"][0].splitlines()[-1]
    base = load_file(base_directory / "models" / "checkpoints" / "standin.safetensors")
    exported = load_file(base_directory / "output" / "checkpoints" / file)
    assert exported.keys() == base.keys()
    assert all(torch.equal(exported[k], base[k]) and exported[k].dtype == base[k].dtype for k in base)


def test_an_edited_caption_is_a_new_run(server, quick_graph, base_directory):
    train = node(quick_graph, "DreamBoothTrain")
    quick_graph[train]["inputs"] |= {"name": "edited", "train": "lora", "steps": 1}
    graph, caption = up_to_training(quick_graph), base_directory / "input" / "plush" / "plush-1.txt"
    original = caption.read_text()
    first = server.run(graph).outputs[train]["text"]
    caption.write_text("a photo of a plush toy under a tree")
    try:
        assert server.run(graph).outputs[train]["text"] != first
    finally:
        caption.write_text(original)


@pytest.mark.nightly
def test_a_finished_run_is_made_longer(server, quick_graph, base_directory):
    train = quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "longer", "keep_state": True, "lr_scheduler": "constant"}
    server.run(quick_graph)
    texts = []
    train |= {"steps": 3, "keep_state": False}
    result = server.run(quick_graph, on_text=lambda _, text: texts.append(text))
    assert any(text.startswith("Going on from the state of longer-") for text in texts)
    assert result.outputs[node(quick_graph, "DreamBoothTrain")]["text"][0].startswith("3 steps")
    logs = [path.read_text() for path in (base_directory / "output" / "finetune").glob("longer-*/log.txt")]
    assert sum("resuming after step 2" in log for log in logs) == 1
    train |= {"steps": 4, "lr_scheduler": "cosine", "keep_state": True}
    server.run(quick_graph)
    train["steps"] = 5
    server.run(quick_graph, on_text=lambda _, text: texts.append(text))
    assert any(text.startswith("Beginning anew: longer-") for text in texts)


def test_comfyuis_own_loss_plot_takes_our_losses(server, quick_graph):
    train = node(quick_graph, "DreamBoothTrain")
    quick_graph["plot"] = {"class_type": "LossGraphNode", "inputs": {"loss": [train, 3], "filename_prefix": "loss"}}
    result = server.run(up_to_training(quick_graph, "plot"))
    assert shown(server, result, "plot").size == (840, 520)


def test_class_photos_train_beside_the_subject(server, quick_graph, base_directory):
    train = node(quick_graph, "DreamBoothTrain")
    folder = base_directory / "input" / "class-photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (80, 80), (60 * number, 90, 20)).save(folder / f"{number}.png")
    inputs = {"folder": folder.name, "resolution": 64, "crop": "center"}
    quick_graph["class"] = {"class_type": "DatasetLoader", "inputs": inputs}
    quick_graph[train]["inputs"] |= {"class_dataset": ["class", 0], "name": "prior"}
    texts = []
    server.run(up_to_training(quick_graph, "class"), on_text=lambda _, text: texts.append(text))
    assert "Encoding class images: 3 of 3" in texts
    (run_dir,) = (base_directory / "output" / "finetune").glob("prior-*")
    run = RunDir(run_dir).load_run()
    assert {photo.caption for photo in run.class_dataset.photos} == {"a photo of a plush toy"}
    assert run.settings.dreambooth.prior_loss_weight == 1.0

    inputs["resolution"] = 128
    with pytest.raises(Refused, match="class images are prepared at 128 pixels, the subject's at 64"):
        server.run(quick_graph)


@pytest.mark.skipif(not SHARED_PHOTOS.is_dir(), reason="needs the photos of ../shared/dreambench/grey_sloth_plushie")
def test_real_photos_become_a_saved_image(server, quick_graph, base_directory):
    folder = base_directory / "input" / "sloth"
    folder.mkdir()
    for photo in SHARED_PHOTOS.glob("*.jpg"):
        (folder / photo.name).write_bytes(photo.read_bytes())
    graph = copy.deepcopy(quick_graph)
    graph[node(graph, "DatasetLoader")]["inputs"]["folder"] = "sloth"
    graph[node(graph, "CaptionWithToken")]["inputs"]["class_word"] = "sloth plushie"
    result = server.run(graph)
    (text,) = result.outputs[node(graph, "DatasetLoader")]["text"]
    assert text == "5 photos, 0 captions, ready"
    saved = result.outputs[node(graph, "SaveImage", "after training")]["images"][0]
    assert (base_directory / "output" / saved["filename"]).is_file()
