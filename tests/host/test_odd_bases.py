"""Base checkpoints as they are found: of other types, with more or fewer tensors, cut short."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.run import node
from tools.server import Failed, Refused

from .graphs import exported, shown, up_to_training, without_before

MIDDLE = "model.diffusion_model.middle_block.1.proj_in.weight"
NUMBERS = itertools.count()


@pytest.fixture
def change_base(base_directory):
    """Write another checkpoint, made from the stand-in's tensors; its name, which ComfyUI has not cached."""
    checkpoints = base_directory / "models" / "checkpoints"
    path = checkpoints / f"odd-{next(NUMBERS)}.safetensors"

    def write(change) -> str:
        tensors = load_file(checkpoints / "standin.safetensors")
        save_file(change(tensors) or tensors, path)
        return path.name

    yield write
    path.unlink(missing_ok=True)


def train_from(graph: dict, name: str) -> dict:
    graph[node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = name
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"name": "odd", "steps": 1, "batch_size": 1, "learning_rate": 1e-3}
    return graph


@pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=pytest.mark.nightly), torch.float8_e4m3fn])
def test_a_base_in_a_coarse_type_is_trained_and_exported_in_a_finer_one(server, quick_graph, base_directory, change_base, dtype):
    def coarse(tensors: dict) -> dict:
        return {k: v.to(dtype) if k.startswith("model.") and v.ndim > 1 else v for k, v in tensors.items()}

    result = server.run(without_before(train_from(quick_graph, change_base(coarse))))
    assert shown(server, result, node(quick_graph, "SaveImage", "after training")).size == (64, 64)
    weight = exported(quick_graph, result, base_directory)[MIDDLE]
    assert weight.dtype in (torch.float16, torch.float32)
    assert weight.isfinite().all()


def test_tensors_that_are_too_many_change_nothing(server, quick_graph, base_directory, change_base):
    surplus = {"model_ema.decay": torch.ones(()), "stranger.weight": torch.ones(3)}
    result = server.run(up_to_training(train_from(quick_graph, change_base(lambda tensors: tensors | surplus))))
    assert not surplus.keys() & exported(quick_graph, result, base_directory).keys()


@pytest.mark.parametrize(
    ("part", "tensor"),
    [
        ("U-Net", "model.diffusion_model.time_embed.2.bias"),
        ("text encoder", "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight"),
        ("VAE", "first_stage_model.decoder.mid.block_1.conv1.weight"),
    ],
)
def test_a_base_that_lacks_a_tensor_is_named(server, quick_graph, change_base, part, tensor):
    def without(tensors: dict) -> None:
        del tensors[tensor]

    with pytest.raises(Failed, match=rf"not complete: of its {part} 1 tensors are missing, for example {tensor}\. Download it"):
        server.run(up_to_training(train_from(quick_graph, change_base(without))))


NEW, OLD = "cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."


@pytest.mark.parametrize("stray", ["embeddings.position_ids", "final_layer_norm.weight"])
def test_a_text_encoder_in_the_old_layout_with_one_name_of_the_new(server, quick_graph, base_directory, change_base, stray):
    """As merges have it: ComfyUI loads it completely."""

    def merged(tensors: dict) -> dict:
        renamed = {OLD + name.removeprefix(NEW) if name.startswith(NEW) else name: tensor for name, tensor in tensors.items()}
        return renamed | {NEW + stray: renamed.pop(OLD + stray, torch.arange(77).reshape(1, 77))}

    result = server.run(up_to_training(train_from(quick_graph, change_base(merged))))
    tensors = exported(quick_graph, result, base_directory)
    assert NEW + "final_layer_norm.weight" in tensors
    assert not any(name.startswith(OLD) and not name.startswith(NEW) for name in tensors)


def test_a_text_encoder_in_the_old_layout_that_lacks_a_tensor_is_named(server, quick_graph, change_base):
    gone = "encoder.layers.3.mlp.fc1.weight"

    def old(tensors: dict) -> dict:
        kept = {name: tensor for name, tensor in tensors.items() if name != NEW + gone}
        return {OLD + name.removeprefix(NEW) if name.startswith(NEW) else name: tensor for name, tensor in kept.items()}

    with pytest.raises(Failed, match=rf"not complete: of its text encoder 1 tensors are missing, for example {NEW}{gone}"):
        server.run(up_to_training(train_from(quick_graph, change_base(old))))


def test_a_base_without_a_vae_is_named(server, quick_graph, change_base):
    def without(tensors: dict) -> dict:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}

    with pytest.raises(Failed, match="The checkpoint holds no VAE"):
        server.run(up_to_training(train_from(quick_graph, change_base(without))))


def test_a_base_that_was_cut_short_fails_and_the_server_goes_on(server, quick_graph, base_directory, change_base):
    path = base_directory / "models" / "checkpoints" / change_base(lambda tensors: None)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises((Failed, Refused)):
        server.run(up_to_training(train_from(quick_graph, path.name)))
    good = {
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 1]}},
    }
    assert len(server.run(good).outputs["2"]["images"]) == 4
