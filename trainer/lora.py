"""LoRA (Hu et al. 2021): low-rank adapters beside frozen layers, by peft; exported under the names that all programs read."""

import re
from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from .base_model import freeze_as
from .config import Settings

ATTENTION = r".*attentions\.\d+\.transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
CONVOLUTION = r".*(resnets\.\d+\.(conv1|conv2|conv_shortcut)|(down|up)samplers\.0\.conv)"


def add_lora(unet: UNet2DConditionModel, settings: Settings, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Put adapters into the U-Net and give their parameters, fp32; everything else is frozen and kept as `dtype`.

    The up matrices start as zero, so the model is the base's; the down matrices are drawn from the run's seed.
    """
    targets = ATTENTION if settings.lora_layers == "attention" else f"({ATTENTION}|{CONVOLUTION})"
    freeze_as(unet, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        config = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=targets)
        inject_adapter_in_model(config, unet)
    params = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    for p in params.values():
        p.data = p.data.float()
    return params


def lora_file(params: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The adapters under the common (kohya) names, fp16: `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight`, `.alpha`.

    Programs scale the adapter by alpha / rank; without the alpha they would take 1.
    """
    tensors = {}
    for name, p in params.items():
        layer, part = re.fullmatch(r"(.+)\.lora_([AB])\.default\.weight", name).groups()
        key = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{key}.lora_{'down' if part == 'A' else 'up'}.weight"] = p.detach().to("cpu", torch.float16)
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    return tensors
