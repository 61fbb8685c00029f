"""LoRA (Hu et al. 2021) and LoKr (Yeh et al. 2023): adapters beside frozen layers, by peft, exported under the usual names.

Of the kinds that peft has, ComfyUI's loader reads these as they were trained. Not DoRA: it divides by the norms of the base's
rows, peft by those of the changed ones. Not OFT: its blocks turn a layer's outputs, peft's turn its inputs.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..optional_libraries import show_library

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..run.settings import Settings

UNET_PREFIX, TEXT_PREFIX = "lora_unet_", "lora_te_text_model_"
"""What kohya's names of layers begin with, in the U-Net and in CLIP's text encoder."""
_ATTENTION = r".*attentions\.\d+\.transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r".*attentions\.\d+\.(proj_in|proj_out|transformer_blocks\.\d+\.ff\.net\.(0\.proj|2))"
_RESIDUAL = r".*(resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)|(down|up)samplers\.0\.conv)"
_TEXT_ATTENTION = r".*self_attn\.(q_proj|k_proj|v_proj|out_proj)"
_TEXT_FEED_FORWARD = r".*mlp\.(fc1|fc2)"
TARGETS = {
    "attention": _ATTENTION,
    "attention_and_feed_forward": f"({_ATTENTION}|{_FEED_FORWARD})",
    "all": f"({_ATTENTION}|{_FEED_FORWARD}|{_RESIDUAL})",
}
"""Patterns of the U-Net's layers that get an adapter, by `lora_layers`; *all* are those of kohya's scripts with conv_dim."""
TEXT_TARGETS = {
    "attention": _TEXT_ATTENTION,
    "attention_and_feed_forward": f"({_TEXT_ATTENTION}|{_TEXT_FEED_FORWARD})",
    "all": f"({_TEXT_ATTENTION}|{_TEXT_FEED_FORWARD})",
}
"""Those of the text encoder's, which has no residual blocks."""


KINDS = ("lora", "lokr")
FACTORS = {"lora_A": "lora_down", "lora_B": "lora_up"}
"""kohya's names of what peft calls otherwise."""


def add_adapters(model: "nn.Module", pattern: str, settings: "Settings", dtype: "torch.dtype") -> "dict[str, nn.Parameter]":
    """Put adapters into the layers of a pattern and return their parameters, fp32; the rest is frozen and kept as `dtype`.

    A factor of each starts as zero, so the model is the base's; the others are drawn from the run's seed.
    """
    import torch

    show_library("peft")
    from peft import LoKrConfig, LoraConfig, inject_adapter_in_model

    from ..models.sd15 import freeze_as

    dreambooth = settings.dreambooth
    freeze_as(model, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        # peft says that alpha is an int, and only divides it.
        alpha: Any = dreambooth.lora_alpha
        if dreambooth.lora_kind == "lokr":
            config = LoKrConfig(r=dreambooth.lora_rank, alpha=alpha, target_modules=pattern)
        else:
            config = LoraConfig(r=dreambooth.lora_rank, lora_alpha=alpha, target_modules=pattern)
        inject_adapter_in_model(config, model)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for p in params.values():
        p.data = p.data.float()
    return params


@contextmanager
def adapters_off(model: "nn.Module") -> Iterator[None]:
    """Let the model compute, for the block, what it does without its adapters."""
    show_library("peft")
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def adapter_tensors(params: "Mapping[str, Tensor]", prefix: str, settings: "Settings") -> "dict[str, Tensor]":
    """Return the adapters, fp16, under kohya's names: `<prefix><layer>.lora_down.weight`, `.lokr_w1`, `.alpha` and so on.

    Programs scale an adapter by alpha / rank; without the alpha they would take 1. They do not scale a LoKr whose factors are
    both whole, peft does: then the scale is in its first one.
    """
    import torch

    alpha = settings.dreambooth.lora_alpha
    tensors = {}
    for name, p in params.items():
        parsed = re.fullmatch(r"(?:text_model\.)?(.+)\.(lo\w+)\.default(\.weight)?", name)
        assert parsed, name
        layer, factor, weight = parsed.groups()
        key = prefix + layer.replace(".", "_")
        if factor == "lokr_w1" and name.replace(factor, "lokr_w2") in params:
            p = p * (alpha / settings.dreambooth.lora_rank)
        tensors[f"{key}.{FACTORS.get(factor, factor)}{weight or ''}"] = p.detach().to("cpu", torch.float16)
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    return tensors
