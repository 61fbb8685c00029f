"""LoRA beside the U-Net's layers; which layers these are is said in adapters.py."""

from typing import TYPE_CHECKING

from ..run.messages import Message, message
from .adapters import TARGETS, UNET, adapter_tensors, add_adapters
from .memory import FROZEN_FLOP, SD15_UNET, BaseSize, PartMemory, frozen_bytes

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import nn

    from ..context import Context
    from ..models.sd15 import BaseModel
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

WEIGHTS_PER_RANK = {"attention": 199_296, "attention_and_feed_forward": 423_936, "all": 1_002_496}
"""Of SD v1.5's U-Net."""
ACTIVATIONS = {"attention": 1.15e9, "attention_and_feed_forward": 1.32e9, "all": 1.45e9}
"""Bytes a sample: an adapter keeps the input of its layer."""
LOW_LEARNING_RATE = 1e-5
"""Below it a LoRA learns next to nothing."""


class LoRA:
    """Adapters beside the frozen U-Net's layers, in fp32."""

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
        files.lora |= adapter_tensors(self.params, UNET, self.settings.dreambooth.lora_alpha)


def add_lora(unet: "UNet2DConditionModel", settings: "Settings") -> "dict[str, nn.Parameter]":
    """Put the settings' adapters into the U-Net, frozen as the type of the forward pass, and return their parameters."""
    from ..models.sd15 import DTYPES

    return add_adapters(unet, TARGETS[settings.dreambooth.lora_layers], settings, DTYPES[settings.training.precision])
