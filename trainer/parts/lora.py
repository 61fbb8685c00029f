"""LoRA beside the U-Net's layers; which layers these are is said in adapters.py."""

from functools import partial
from typing import TYPE_CHECKING

from ..run.messages import Message, message
from .adapters import TARGETS, UNET_PREFIX, adapter_tensors, adapters_off, add_adapters
from .memory import FROZEN_FLOP, LOKR, LORA, SD15_UNET_WEIGHTS, UNET, BaseSize, PartMemory, bytes_when_frozen
from .unet_side import let_train, unet_param_groups

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor, nn

    from ..context import Context
    from ..models.sd15 import BaseModel
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

WEIGHTS_PER_RANK = {"attention": 199_296, "attention_and_feed_forward": 423_936, "all": 1_050_816}
"""Of SD v1.5's U-Net."""
ACTIVATIONS = {"attention": 1.15e9, "attention_and_feed_forward": 1.32e9, "all": 1.45e9}
"""Bytes a sample: an adapter keeps the input of its layer."""
ADAPTED_WEIGHTS = {"attention": 93_511_680, "attention_and_feed_forward": 266_977_280, "all": 857_006_080}
"""Weights of the layers with an adapter. A LoKr computes the change of each of them, and keeps it for the backward pass."""


class LoRA:
    """Adapters beside the frozen U-Net's layers."""

    result_kind = "lora"
    learning_rate = 1e-4
    """That of diffusers' example (examples/dreambooth/README.md)."""
    published: "tuple[float, int] | None" = (learning_rate, 500)
    """diffusers' (examples/dreambooth/README.md)."""

    @staticmethod
    def title(settings: "Settings") -> Message:
        """Return what is trained."""
        rank = settings.dreambooth.lora_rank
        return message("LoKr rank {rank}", rank=rank) if _is_lokr(settings) else message("LoRA rank {rank}", rank=rank)

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but this part uses."""
        return ("lora_kind", "lora_rank", "lora_alpha", "lora_layers")

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device; a LoKr is counted as a LoRA, though it has fewer weights."""
        share = base.unet_weights / SD15_UNET_WEIGHTS
        layers, precision = settings.dreambooth.lora_layers, settings.training.precision
        adapters = share * settings.dreambooth.lora_rank * WEIGHTS_PER_RANK[layers]
        frozen = {UNET: bytes_when_frozen(base.unet_weights, precision)}
        if _is_lokr(settings) and not settings.training.gradient_checkpointing:  # with it, they are those of one block
            frozen[LOKR] = bytes_when_frozen(share * ADAPTED_WEIGHTS[layers], precision)
        return PartMemory(
            trained_weights={LORA: adapters},
            frozen_bytes=frozen,
            exported_bytes=2 * adapters,
            activations=ACTIVATIONS[layers],
            flop=FROZEN_FLOP,
        )

    def __init__(self, context: "Context", base: "BaseModel"):
        from ..models.lora_file import go_on_from, is_text, unet_stems
        from ..models.sd15 import move

        self.settings = context.settings
        self.model = base.unet()
        self.params = add_lora(self.model, self.settings)
        if context.run.lora:
            text_too = self.settings.dreambooth.train == "lora_and_text_encoder"  # else the file must have none of it
            stems_of = partial(unet_stems, table=base.unet_table)
            go_on_from(context.lora_file, self.params, stems_of, self.settings, lambda name: not (text_too and is_text(name)))
        let_train(self.model, context)
        move(self.model, context.device)  # in place: the parameters stay the same objects

    def teach(self, noisy: "Tensor", timesteps: "Tensor", states: "Tensor") -> "Tensor":
        """Return what the model predicts without its adapters, (B, 4, h, w)."""
        with adapters_off(self.model):
            return self.model(noisy, timesteps, states).sample

    def param_groups(self) -> "list[ParamGroup]":
        """Return the adapters' parameters with their learning rate and decay."""
        return unet_param_groups(self.params, self.settings)

    def export(self, files: "ResultFiles") -> None:
        """Give the result's LoRA file its tensors."""
        files.lora |= adapter_tensors({name: files.trained[name] for name in self.params}, UNET_PREFIX, self.settings)


def _is_lokr(settings: "Settings") -> bool:
    return settings.dreambooth.lora_kind == "lokr"


def add_lora(unet: "UNet2DConditionModel", settings: "Settings") -> "dict[str, nn.Parameter]":
    """Put the settings' adapters into the U-Net, frozen as the type of the forward pass, and return their parameters."""
    from ..models.sd15 import DTYPES

    return add_adapters(unet, TARGETS[settings.dreambooth.lora_layers], settings, DTYPES[settings.training.precision])
