"""LoRA (Hu et al. 2021): low-rank adapters beside frozen layers, by peft; exported under the names that all programs read."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..optional_libraries import show_library
from ..run.messages import Message, message
from .memory import FROZEN_FLOP, SD15_UNET, BaseSize, PartMemory, frozen_bytes

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor, nn

    from ..context import Context
    from ..models.sd15 import BaseModel
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

_ATTENTION = r".*attentions\.\d+\.transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_CONVOLUTION = r".*(resnets\.\d+\.(conv1|conv2|conv_shortcut)|(down|up)samplers\.0\.conv)"
TARGETS = {"attention": _ATTENTION, "attention_and_convolution": f"({_ATTENTION}|{_CONVOLUTION})"}
"""Patterns of the layers that get an adapter, by `lora_layers`."""
WEIGHTS_PER_RANK = {"attention": 199_296, "attention_and_convolution": 777_856}
"""Of SD v1.5's U-Net."""
ACTIVATIONS = {"attention": 1.15e9, "attention_and_convolution": 1.29e9}
"""Bytes a sample: an adapter keeps the input of its layer."""
LOW_LEARNING_RATE = 1e-5
"""Below it a LoRA learns next to nothing."""


class LoRA:
    """Adapters beside the frozen U-Net's layers."""

    result_kind = "lora"
    learning_rate = 1e-4
    """That of diffusers' example (examples/dreambooth/README.md)."""

    @staticmethod
    def title(settings: "Settings") -> Message:
        """Return what is trained."""
        return message("LoRA rank {rank}", rank=settings.dreambooth.lora_rank)

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but this part uses."""
        return ("lora_rank", "lora_alpha", "lora_layers")

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device."""
        share = base.unet_weights / SD15_UNET
        adapters = share * settings.dreambooth.lora_rank * WEIGHTS_PER_RANK[settings.dreambooth.lora_layers]
        frozen = frozen_bytes(base.unet_weights, settings.training.precision)
        return PartMemory(
            trained={"lora": adapters},
            frozen={"unet": frozen},
            exported=2 * adapters,
            activations=ACTIVATIONS[settings.dreambooth.lora_layers],
            flop=FROZEN_FLOP,
        )

    def __init__(self, context: "Context", base: "BaseModel"):
        from ..models.sd15 import move

        self.settings = context.settings
        self.model = base.unet()
        self.params = add_lora(self.model, self.settings)
        self.model.train()
        if self.settings.training.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        move(self.model, context.device)  # in place: the parameters stay the same objects
        if self.settings.optimizer.learning_rate < LOW_LEARNING_RATE:
            context.reporter.warning(
                "A learning rate of {rate:g} is low for a LoRA: it usually needs about 1e-4.",
                rate=self.settings.optimizer.learning_rate,
            )

    def param_groups(self) -> "list[ParamGroup]":
        """Return the adapters' parameters with their learning rate and decay."""
        from ..training.optimizers import ParamGroup

        optimizer = self.settings.optimizer
        return [ParamGroup(self.params, optimizer.learning_rate, optimizer.weight_decay)]

    def export(self, files: "ResultFiles") -> None:
        """Give the result's LoRA file its tensors."""
        files.lora = lora_tensors(files.trained, self.settings.dreambooth.lora_alpha)


def add_lora(unet: "UNet2DConditionModel", settings: "Settings") -> "dict[str, nn.Parameter]":
    """Put adapters into the U-Net and return their parameters, fp32; everything else is frozen and kept as the precision's type.

    The up matrices start as zero, so the model is the base's; the down matrices are drawn from the run's seed.
    """
    import torch

    show_library("peft")
    from peft import LoraConfig, inject_adapter_in_model

    from ..models.sd15 import DTYPES, freeze_as

    dreambooth = settings.dreambooth
    freeze_as(unet, DTYPES[settings.training.precision])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        config = LoraConfig(
            r=dreambooth.lora_rank,
            lora_alpha=dreambooth.lora_alpha,  # pyright: ignore[reportArgumentType] - peft says int, and only divides it
            target_modules=TARGETS[dreambooth.lora_layers],
        )
        inject_adapter_in_model(config, unet)
    params = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    for p in params.values():
        p.data = p.data.float()
    return params


def lora_tensors(params: "Mapping[str, Tensor]", alpha: float) -> "dict[str, Tensor]":
    """Return the adapters, fp16, under kohya's names: `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight`, `.alpha`.

    Programs scale the adapter by alpha / rank; without the alpha they would take 1.
    """
    import torch

    tensors = {}
    for name, p in params.items():
        parsed = re.fullmatch(r"(.+)\.lora_([AB])\.default\.weight", name)
        assert parsed, name
        layer, matrix = parsed.groups()
        key = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{key}.lora_{'down' if matrix == 'A' else 'up'}.weight"] = p.detach().to("cpu", torch.float16)
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    return tensors
