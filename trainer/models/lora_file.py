"""LoRA files to go on from, whoever made them: kohya's names, A1111's, those of diffusers and peft, and ComfyUI's own."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..run.lora_names import SUFFIXES
from ..run.messages import Message, UserError, message
from ..run.settings import Settings
from .key_mapping import UNET_PREFIX

SCALED = ("lora_B", "lokr_w1", "lokr_w1_a")
"""The factor of a layer that takes up the difference between the file's scale and the run's."""
WHOLE = (".diff", ".diff_b")
"""Of a layer: the change of its weight, or of its bias, that is not made of two factors."""
TEXT_BEGINNINGS = ("lora_te", "text_encoder")


def is_text(name: str) -> bool:
    """Return whether a tensor of a LoRA file belongs to a text encoder, by its name."""
    return name.startswith(TEXT_BEGINNINGS)


def layer_of(name: str) -> int:
    """Return which layer of the text encoder, from 0, a tensor of a LoRA file is of, by its name; 0 where it names none."""
    found = re.search(r"layers[._](\d+)[._]", name)
    return int(found[1]) if found else 0


def unet_stems(layer: str, table: Mapping[str, str]) -> list[str]:
    """Return what programs call a layer of the U-Net; `table` gives LDM's name of diffusers' one."""
    ldm = table[f"{layer}.weight"].removeprefix(UNET_PREFIX).removesuffix(".weight")
    processor = layer.replace(".to_", ".processor.to_").removesuffix(".0")  # of diffusers' first LoRAs
    kohya = [f"lora_unet_{name.replace('.', '_')}" for name in (layer, ldm)]
    lycoris = f"lycoris_{layer.replace('.', '_')}"
    plain = [f"unet.{layer}", f"base_model.model.{layer}", layer, f"unet.{processor}", processor, f"diffusion_model.{ldm}"]
    return [*kohya, lycoris, *plain]


def text_stems(layer: str) -> list[str]:
    """Return what programs call a layer of CLIP-L's text encoder, `layer` by either of transformers' layouts."""
    layer = layer.removeprefix("text_model.")
    kohya = f"text_model_{layer.replace('.', '_')}"
    plain = [f"text_encoder.text_model.{layer}", f"text_encoder.{layer}"]
    return [f"lora_te_{kohya}", f"lora_te1_{kohya}", *plain, f"text_encoders.clip_l.transformer.text_model.{layer}"]


@torch.no_grad()
def go_on_from(
    path: Path,
    params: Mapping[str, nn.Parameter],
    stems_of: Callable[[str], Sequence[str]],
    settings: Settings,
    belongs: Callable[[str], bool],
) -> None:
    """Give adapters, by peft's names, the weights of a LoRA file, so that they do what it does at strength 1.

    `stems_of` gives the names that a layer may have there, `belongs` says which of the file's tensors are of this model. Raises
    UserError unless these are just the layers of the run, in the same shapes.
    """
    scale = settings.dreambooth.lora_alpha / settings.dreambooth.lora_rank
    tensors = {name: tensor for name, tensor in load_file(path).items() if belongs(name)}
    whole = [name for name in tensors if name.endswith(WHOLE)]
    if whole:
        raise UserError(
            "The LoRA to go on from changes norms and biases too, in {count} tensors such as {first}: ComfyUI's Train LoRA makes "
            "such files. No run can go on from it; load it with Load LoRA, or begin without it.",
            count=len(whole),
            first=whole[0],
        )
    used, missing = set(), []
    for name, param in params.items():
        layer, factor = name.removesuffix(".weight").removesuffix(".default").rsplit(".", 1)
        found = _find(factor, stems_of(layer), tensors)
        if found is None:
            missing.append(name)
            continue
        key, stem = found
        tensor = tensors[key].float()
        if tensor.numel() != param.numel() or tensor.shape[0] != param.shape[0]:
            reason = message("{name} is {theirs}, this run's is {ours}", name=key, theirs=_size(tensor), ours=_size(param))
            raise _mismatch(reason)
        used |= {key, f"{stem}.alpha"}
        factors = {other.removesuffix(".default") for other in _factors(layer, params)}
        ratio = _scale(stem, factors, tensors) / scale if factor in SCALED else 1.0
        param.copy_(tensor.reshape(param.shape) * ratio)
    if missing:
        count, every = len(missing), len(params)
        raise _mismatch(
            message("it lacks {count} of {every} tensors, for example {first}", count=count, every=every, first=missing[0])
        )
    surplus = sorted(tensors.keys() - used)
    if surplus:
        raise _mismatch(message("it has {count} tensors more, for example {first}", count=len(surplus), first=surplus[0]))


def _find(factor: str, stems: Sequence[str], tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Return the name of a factor's tensor, and of its layer, in the file."""
    suffixes = [f"{suffix}.weight" for suffix in SUFFIXES[factor]] if factor in SUFFIXES else [f".{factor}"]
    return next(((stem + suffix, stem) for stem in stems for suffix in suffixes if stem + suffix in tensors), None)


def _factors(layer: str, params: Iterable[str]) -> list[str]:
    return [name.removeprefix(f"{layer}.").removesuffix(".weight") for name in params if name.startswith(f"{layer}.lo")]


def _scale(stem: str, factors: set[str], tensors: Mapping[str, Tensor]) -> float:
    """Return alpha / rank of a layer in the file; 1 without an alpha, and for a LoKr whose factors are both whole."""
    if f"{stem}.alpha" not in tensors or {"lokr_w1", "lokr_w2"} <= factors:
        return 1.0
    narrow = next(name for name in ("lora_A", "lokr_w2_b", "lokr_w1_b") if name in factors)
    found = _find(narrow, [stem], tensors)
    assert found
    return float(tensors[f"{stem}.alpha"]) / tensors[found[0]].shape[0]


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _mismatch(reason: Message) -> UserError:
    return UserError(
        "The LoRA to go on from is not what this run trains: {reason}. Set train, lora_kind, lora_layers and lora_rank to what "
        "it was made with; DoRA and other kinds cannot be trained on.",
        reason=reason,
    )
