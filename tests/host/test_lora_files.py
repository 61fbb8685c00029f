"""Every kind of LoRA file in ComfyUI's own loader: what the U-Net and the text encoder then compute is what the trainer does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tools.setup import comfyui_path
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer
from trainer.parts.adapters import KINDS, TARGETS, TEXT_PREFIX, TEXT_TARGETS, UNET_PREFIX, adapter_tensors, add_adapters
from trainer.run.settings import Settings

from .lora_outputs import PROMPT

SCRIPT = Path(__file__).with_name("lora_outputs.py")
CASES = [(kind, layers) for kind in KINDS for layers in TARGETS]
"""Kinds and layers."""


def settings_of(kind: str, layers: str) -> Settings:
    sizes = {"lora_rank": 16, "lora_alpha": 8.0}  # at which a LoKr has whole factors in some layers, narrow ones in others
    return Settings.of(method="dreambooth", token="mysks", train="lora", lora_kind=kind, lora_layers=layers, **sizes)


def psnr(one: Tensor, two: Tensor) -> float:
    """The peak is the range of the first."""
    return float(20 * torch.log10((one.max() - one.min()) / (one - two).square().mean().sqrt()))


def learned(params: dict[str, Tensor], seed: int) -> None:
    """Give the adapters weights as if they had learned something that is well to be seen."""
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in params.values():
            p.add_(torch.randn(p.shape, generator=numbers), alpha=0.1)


@pytest.fixture(scope="module")
def computed(standin_base, tmp_path_factory) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """What ComfyUI computes with the file of each case, what the trainer does, and what ComfyUI's loader passed over."""
    folder, base = tmp_path_factory.mktemp("loras"), BaseModel(standin_base)
    tokenizer = load_tokenizer(str(Path(comfyui_path()) / "comfy" / "sd1_tokenizer"))
    numbers = torch.Generator().manual_seed(0)
    shapes = {"noisy": (1, 4, 8, 8), "states": (1, 77, 768)}
    given = {name: torch.randn(shape, generator=numbers) for name, shape in shapes.items()} | {"timesteps": torch.tensor([500])}
    save_file(given, folder / "inputs.safetensors")
    own, files = {}, []
    for number, (kind, layers) in enumerate(CASES):
        unet, text_encoder = base.unet(), base.text_encoder()
        settings, name = settings_of(kind, layers), f"{kind}-{layers}"

        def compute(strength: str, name=name, unet=unet, text_encoder=text_encoder) -> None:
            with torch.no_grad():
                own[f"{name}/{strength}/unet"] = unet(given["noisy"], given["timesteps"], given["states"]).sample
                own[f"{name}/{strength}/text"] = encode_prompts(text_encoder, tokenizer, [PROMPT])

        compute("0")
        tensors = {}
        for model, prefix, targets in ((unet, UNET_PREFIX, TARGETS), (text_encoder, TEXT_PREFIX, TEXT_TARGETS)):
            params = add_adapters(model, targets[layers], settings, torch.float32)
            learned(params, number)
            tensors |= adapter_tensors(params, prefix, settings)
        compute("1")
        files.append(folder / f"{name}.safetensors")
        save_file(tensors, files[-1])
    command = [sys.executable, SCRIPT, comfyui_path(), standin_base, folder / "inputs.safetensors", folder / "found.safetensors"]
    done = subprocess.run([*command, *files], check=True, capture_output=True, text=True)
    return load_file(folder / "found.safetensors"), own, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("kind", "layers"), CASES)
@pytest.mark.parametrize("model", ["unet", "text"])
def test_at_1_it_is_the_trainers_own_and_at_0_the_bases(computed, kind, layers, model):
    found, own, passed_over = computed
    assert not passed_over
    base, trained = (f"{kind}-{layers}/{strength}/{model}" for strength in (0, 1))
    figures = psnr(own[base], found[base]), psnr(own[trained], found[trained]), psnr(own[base], own[trained])
    print("\n{}, {}, {}: at 0 {:.0f} dB, at 1 {:.0f} dB; the base is {:.0f} dB away".format(kind, layers, model, *figures))
    assert min(figures[:2]) >= 40
    assert figures[2] < 40
