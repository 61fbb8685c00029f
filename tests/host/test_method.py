"""What DreamBoothTrain can train, in a real server: LoRA, text encoder, class images, sample pictures."""

import copy
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from safetensors.torch import load_file

from demo.run import node
from tools.server import Failed, Refused
from trainer.context import Context, make_accelerator
from trainer.models.key_mapping import ldm_text_name
from trainer.models.sd15 import BaseModel
from trainer.parts.adapters import TEXT_TARGETS, add_adapters
from trainer.parts.lora import add_lora
from trainer.parts.text_encoder import PREFIX
from trainer.recipes import dreambooth
from trainer.run.events import Reporter
from trainer.run.names import DREAMBOOTH
from trainer.run.presets import NAMED, given
from trainer.run.run_dir import RunDir
from trainer.run.stop_request import StopRequest
from trainer.training.export import ResultFiles
from trainer.training.tensor_file import write_tensors

from .graphs import picture_graph, same, shown, up_to_training

PROMPT = "a photo of mysks plush toy in the snow"
BASE = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}


def psnr(one: Image.Image, two: Image.Image) -> float:
    error = np.square(np.asarray(one, dtype=float) - np.asarray(two, dtype=float)).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.fixture
def train(quick_graph) -> dict:
    """The widgets of the training node in the quick graph."""
    return quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]


def use(graph: dict, loader: str) -> None:
    """Have the graph's picture drawn with the MODEL and the CLIP of a node."""
    graph["sample"]["inputs"]["model"] = [loader, 0]
    for text in ("positive", "negative"):
        graph[text]["inputs"]["clip"] = [loader, 1]


def own_model(run_dir: RunDir, standin_base, folder, target) -> None:
    """Train the run once more in this process and write the trainer's own model, adapters merged by peft, as a checkpoint."""
    again = RunDir(folder)
    os.link(standin_base, again.base)
    run = run_dir.load_run()
    run = replace(run, settings=run.settings.replace(keep_state=True), export_path=str(folder / "lora.safetensors"))
    reading, _writing = os.pipe()
    accelerator = make_accelerator("cpu", run.settings.training.precision)
    dreambooth.train(Context(run, again, accelerator, Reporter(io.StringIO()), StopRequest(os.fdopen(reading))))
    base = BaseModel(again.base)
    unet = base.unet()
    text_encoder, state, files = base.text_encoder(), load_file(again.state), ResultFiles(base, {})
    pattern = TEXT_TARGETS[run.settings.dreambooth.lora_layers]
    text_params = add_adapters(text_encoder, pattern, run.settings, torch.float32)
    for model, params, prefix in ((unet, add_lora(unet, run.settings), ""), (text_encoder, text_params, PREFIX)):
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(state[f"param/{prefix}{name}"])
        for layer in [m for m in model.modules() if isinstance(m, LoraLayer)]:
            layer.merge()
        for name, merged in model.state_dict().items():
            if ".lora_" not in name:
                name = name.replace(".base_layer.", ".")
                files.replace_base_tensor(ldm_text_name(name) if prefix else base.unet_table[name], merged)
    write_tensors(target, files.all_checkpoint_tensors(), {}, files.dtypes)


@pytest.mark.nightly
def test_a_lora_gives_the_trainers_own_picture_at_strength_1_and_the_bases_at_0(
    server, quick_graph, train, base_directory, standin_base, tmp_path
):
    train |= {"name": "own-lora", "train": "lora_and_text_encoder", "steps": 6, "learning_rate": 1e-2}
    train |= {"precision": "fp32", "lora_rank": 8}
    trainer = node(quick_graph, "DreamBoothTrain")
    graph = up_to_training(quick_graph) | picture_graph(BASE, PROMPT)
    use(graph, trainer)
    result = server.run(graph)
    file = result.outputs[trainer]["text"][0].splitlines()[-1]
    from_node = shown(server, result, "save")
    assert (base_directory / "output" / "loras" / file).is_file()

    def with_lora(loader: dict) -> Image.Image:
        sampled = picture_graph(BASE, PROMPT)
        sampled["lora"] = loader
        use(sampled, "lora")
        return shown(server, server.run(sampled), "save")

    def built_in(strength: float) -> Image.Image:
        inputs = {"model": ["loader", 0], "clip": ["loader", 1], "lora_name": file}
        inputs |= {"strength_model": strength, "strength_clip": strength}
        return with_lora({"class_type": "LoraLoader", "inputs": inputs})

    of_base = shown(server, server.run(picture_graph(BASE, PROMPT)), "save")
    assert same(built_in(1.0), from_node)
    assert same(built_in(0.0), of_base)
    loaded = {"class_type": "LoadFinetuned", "inputs": {"run": file.removesuffix(".safetensors")}}
    assert same(shown(server, server.run(picture_graph(loaded, PROMPT)), "save"), from_node)

    (path,) = (base_directory / "output" / "finetune").glob("own-lora-*")
    own_model(RunDir(path), standin_base, tmp_path, base_directory / "models" / "checkpoints" / "own.safetensors")
    own = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "own.safetensors"}}
    of_trainer = shown(server, server.run(picture_graph(own, PROMPT)), "save")
    found, base_distance = psnr(from_node, of_trainer), psnr(of_base, of_trainer)
    print(f"\nPSNR with the trainer's own model: {found:.1f} dB, of the base with it: {base_distance:.1f} dB")
    assert found >= 40
    assert base_distance < 30

    # LORA_MODEL goes into ComfyUI's own nodes.
    graph["built_in"] = {
        "class_type": "LoraModelLoader",
        "inputs": {"model": ["loader", 0], "lora": [trainer, 5], "strength_model": 1.0, "bypass": False},
    }
    graph["sample"]["inputs"]["model"] = ["built_in", 0]
    assert same(shown(server, server.run(graph), "save"), from_node)


def test_a_token_that_is_learned_beside_a_lora_is_an_embedding(server, quick_graph, train, base_directory):
    train |= {"name": "with-token", "train": "lora_and_token"}
    result = server.run(up_to_training(quick_graph))
    file = result.outputs[node(quick_graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    assert (base_directory / "output" / "loras" / file).is_file()
    assert (base_directory / "models" / "embeddings" / file).is_file()
    graph = {"load": {"class_type": "LoadFinetuned", "inputs": {"run": file.removesuffix(".safetensors")}}}
    graph["trigger"] = {"class_type": "PreviewAny", "inputs": {"source": ["load", 3]}}
    trigger = server.run(graph).outputs["trigger"]["text"][0]
    assert trigger.startswith(f"embedding:{file.removesuffix('.safetensors')}")

    # ComfyUI lists the file among its LoRAs; another run goes on from it.
    train |= {"name": "gone-on", "start_lora": file, "steps": 1}
    result = server.run(up_to_training(quick_graph))
    later = result.outputs[node(quick_graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    before, after = (load_file(base_directory / "output" / "loras" / name) for name in (file, later))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-3) for name in before)  # one step at 1e-4
    assert any(not torch.equal(before[name], after[name]) for name in before)
    train["train"] = "unet"
    with pytest.raises(Refused, match=r"start_lora is .*, but no LoRA is trained: train is unet"):
        server.run(up_to_training(quick_graph))


def test_a_lora_of_another_node_is_gone_on_from_as_its_file_is(server, quick_graph, train, base_directory):
    """Two trainings in a row in one graph, and the second one again from the file of the first."""
    first, loras = node(quick_graph, "DreamBoothTrain"), base_directory / "output" / "loras"
    train |= {"name": "first-of-two", "train": "lora", "lora_rank": 4, "steps": 1, "seed": 7_001}
    graph = up_to_training(quick_graph)
    graph["second"] = copy.deepcopy(graph[first])
    graph["second"]["inputs"] |= {"name": "wired", "lora": [first, 5], "seed": 7_002}
    outputs = server.run(graph).outputs
    file, wired = (outputs[trainer]["text"][0].splitlines()[-1] for trainer in (first, "second"))
    second = graph.pop("second")["inputs"]
    train |= {"name": "by-its-file", "start_lora": file, "seed": 7_002}
    by_file = server.run(up_to_training(quick_graph)).outputs[first]["text"][0].splitlines()[-1]
    given, one, other = (load_file(loras / name) for name in (file, wired, by_file))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], given[name]) for name in one)

    graph["second"] = {"class_type": "DreamBoothTrain", "inputs": second | {"start_lora": file}}
    with pytest.raises(Refused, match="A run goes on from one LoRA: unwire lora, or set start_lora, which is first-of-two-"):
        server.run(graph)
    graph["second"]["inputs"] |= {"start_lora": "none", "train": "unet", "lora_rank": 0}
    with pytest.raises(
        Refused, match=r"lora is LORA_MODEL, but no LoRA is trained: train is unet\. Set train to lora, or unwire lora\."
    ):
        server.run(graph)


def test_without_a_lora_its_output_says_so(server, quick_graph, train):
    train |= {"steps": 1, "batch_size": 1}
    graph = up_to_training(quick_graph)
    inputs = {"lora": [node(quick_graph, "DreamBoothTrain"), 5], "prefix": "loras/x", "steps": 1}
    graph["save"] = {"class_type": "SaveLoRA", "inputs": inputs}
    with pytest.raises(Failed, match="There is no LoRA: set train to 'lora'"):
        server.run(graph)


def test_a_trained_text_encoder_is_loaded_by_comfyui(server, quick_graph, train, base_directory):
    train |= {
        "name": "text",
        "train": "unet_and_text_encoder",
        "steps": 1,
        "batch_size": 1,
        "learning_rate": 1e-7,
        "text_learning_rate": 0.01,
    }
    said = server.log.stat().st_size
    file = server.run(up_to_training(quick_graph)).outputs[node(quick_graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": file}}
    taught = shown(server, server.run(picture_graph(loader, PROMPT)), "save")
    assert not same(taught, shown(server, server.run(picture_graph(BASE, PROMPT)), "save"))
    log = server.log.read_bytes()[said:].decode(errors="replace")
    assert "missing" not in log
    assert "unexpected" not in log


def test_one_widget_turns_prior_preservation_on_and_samples_are_shown(server, quick_graph, train, base_directory):
    quick_graph[node(quick_graph, "CaptionWithToken")]["inputs"]["class_word"] = "rag doll"  # no other test makes its pictures
    train |= {"name": "class-images", "class_images": 1, "sample_prompts": "a photo of mysks\n\na toy\n", "hold_out": 1}
    texts = []
    result = server.run(up_to_training(quick_graph), on_text=lambda _, text: texts.append(text))
    assert any(text.startswith("Making class images: 1 of 1") for text in texts)
    (path,) = (base_directory / "output" / "finetune").glob("class-images-*")
    settings = RunDir(path).load_run().settings
    assert (settings.dreambooth.prior_loss_weight, settings.dreambooth.class_prompt) == (1.0, "a photo of a rag doll")
    assert settings.samples.sample_prompts == ("a photo of mysks", "a toy")
    assert RunDir(path).measurements()[0].keys() == {"step", "trained", "held_out", "class"}
    shows = result.outputs[node(quick_graph, "DreamBoothTrain")]
    assert "Loss on held-out photos" in shows["text"][0]
    grid = server.image(shows["images"][0])
    assert grid.size == (3 * 256, 20 + 2 * (20 + 256))  # before, after 1 step, after 2; a line for each prompt


@pytest.mark.nightly
def test_pictures_made_in_the_graph_can_be_the_class(server, quick_graph, train, base_directory):
    """The built-in sampler's pictures of the base, two at a time, through the loader's IMAGE input."""
    quick_graph[node(quick_graph, "EmptyLatentImage")]["inputs"]["batch_size"] = 2
    inputs = {"folder": "(pictures wired to images)", "resolution": 64, "crop": "center"}
    inputs["images"] = [node(quick_graph, "VAEDecode", "(before)"), 0]
    quick_graph["class"] = {"class_type": "DatasetLoader", "inputs": inputs, "_meta": {"title": "Class"}}
    train |= {"name": "made", "class_dataset": ["class", 0]}
    result = server.run(quick_graph)
    assert result.outputs["class"]["text"][0].startswith("2 photos, 0 captions, ready")
    (path,) = (base_directory / "output" / "finetune").glob("made-*")
    assert len(RunDir(path).load_run().class_dataset.photos) == 2


def test_the_studys_recipe_ships_as_a_graph_and_runs(server, base_directory):
    """As shipped but for the base, the photos, and the size of the job."""
    path = Path(__file__).parents[2] / "workflows" / "api" / "Train a subject as the study did (24 GB).json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    training = graph[node(graph, "DreamBoothTrain")]["inputs"]
    wanted = {"steps": 1600, "batch_size": 8, "learning_rate": 2e-6, "precision": "bf16", "optimizer": "adamw_8bit"}
    assert NAMED[training["preset"]].items() >= (wanted | {"train": "unet_and_token"}).items()
    assert given(DREAMBOOTH, training) == {}
    training |= {"steps": 1, "batch_size": 1, "precision": "fp32"}
    graph[node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = "standin.safetensors"
    graph[node(graph, "DatasetLoader")]["inputs"] |= {"folder": "plush", "resolution": 64}
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": 64, "height": 64}
    for n in graph.values():
        if n["class_type"] == "KSampler":
            n["inputs"]["steps"] = 1
    result = server.run(graph)
    saved = [i for i, n in graph.items() if n["class_type"] == "SaveImage"]
    assert len(saved) == 10
    assert all(shown(server, result, i).size == (64, 64) for i in saved)
