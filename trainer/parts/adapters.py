"""LoRA (Hu et al. 2021): low-rank adapters beside frozen layers, by peft; exported under the names that all programs read."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..optional_libraries import show_library

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..run.settings import Settings

UNET, TEXT = "lora_unet_", "lora_te_text_model_"
"""What kohya's names of layers begin with, in the U-Net and in CLIP's text encoder."""
_ATTENTION = r".*attentions\.\d+\.transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r".*attentions\.\d+\.(proj_in|proj_out|transformer_blocks\.\d+\.ff\.net\.(0\.proj|2))"
_CONVOLUTION = r".*(resnets\.\d+\.(conv1|conv2|conv_shortcut)|(down|up)samplers\.0\.conv)"
_TEXT_ATTENTION = r".*self_attn\.(q_proj|k_proj|v_proj|out_proj)"
_TEXT_FEED_FORWARD = r".*mlp\.(fc1|fc2)"
TARGETS = {
    "attention": _ATTENTION,
    "attention_and_feed_forward": f"({_ATTENTION}|{_FEED_FORWARD})",
    "all": f"({_ATTENTION}|{_FEED_FORWARD}|{_CONVOLUTION})",
}
"""Patterns of the U-Net's layers that get an adapter, by `lora_layers`."""
TEXT_TARGETS = {
    "attention": _TEXT_ATTENTION,
    "attention_and_feed_forward": f"({_TEXT_ATTENTION}|{_TEXT_FEED_FORWARD})",
    "all": f"({_TEXT_ATTENTION}|{_TEXT_FEED_FORWARD})",
}
"""Those of the text encoder's, which has no convolutions."""


def add_adapters(model: "nn.Module", pattern: str, settings: "Settings", dtype: "torch.dtype") -> "dict[str, nn.Parameter]":
    """Put adapters into the layers of a pattern and return their parameters, fp32; the rest is frozen and kept as `dtype`.

    The up matrices start as zero, so the model is the base's; the down matrices are drawn from the run's seed.
    """
    import torch

    show_library("peft")
    from peft import LoraConfig, inject_adapter_in_model

    from ..models.sd15 import freeze_as

    dreambooth = settings.dreambooth
    freeze_as(model, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        config = LoraConfig(
            r=dreambooth.lora_rank,
            lora_alpha=dreambooth.lora_alpha,  # pyright: ignore[reportArgumentType] - peft says int, and only divides it
            target_modules=pattern,
        )
        inject_adapter_in_model(config, model)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for p in params.values():
        p.data = p.data.float()
    return params


def adapter_tensors(params: "Mapping[str, Tensor]", prefix: str, alpha: float) -> "dict[str, Tensor]":
    """Return the adapters, fp16, under kohya's names: `<prefix><layer>.lora_down.weight`, `.lora_up.weight`, `.alpha`.

    Programs scale the adapter by alpha / rank; without the alpha they would take 1.
    """
    import torch

    tensors = {}
    for name, p in params.items():
        parsed = re.fullmatch(r"(?:text_model\.)?(.+)\.lora_([AB])\.default\.weight", name)
        assert parsed, name
        layer, matrix = parsed.groups()
        key = prefix + layer.replace(".", "_")
        tensors[f"{key}.lora_{'down' if matrix == 'A' else 'up'}.weight"] = p.detach().to("cpu", torch.float16)
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    return tensors
