"""The whole U-Net is trained."""

import copy
from typing import TYPE_CHECKING

from ..run.messages import Message, message
from .memory import FULL_FLOP, TEACHER, UNET, BaseSize, PartMemory, bytes_when_frozen
from .unet_side import let_train, unet_param_groups

if TYPE_CHECKING:
    from torch import Tensor

    from ..context import Context
    from ..models.sd15 import BaseModel
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

ACTIVATIONS = 1.25e9
"""Bytes a sample: all layers keep their inputs."""


class UNet:
    """The U-Net, every weight of which is trained."""

    result_kind = "checkpoint"
    learning_rate = 2e-6
    """The study's."""
    published: "tuple[float, int] | None" = (5e-6, 400)
    """diffusers' (examples/dreambooth/README.md)."""

    @staticmethod
    def title(settings: "Settings") -> Message:
        """Return what is trained."""
        return message("model")

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but parts with many weights use."""
        return ("low_memory",)

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device."""
        weights = base.unet_weights
        teacher = bytes_when_frozen(weights, settings.training.precision) if settings.has_teacher else 0
        return PartMemory(
            trained_weights={UNET: weights},
            frozen_bytes={TEACHER: teacher},
            exported_bytes=base.file_bytes,
            activations=ACTIVATIONS,
            flop=FULL_FLOP,
        )

    def __init__(self, context: "Context", base: "BaseModel"):
        from ..models.sd15 import DTYPES, freeze_as, move

        self.settings, self.base = context.settings, base
        self.model = base.unet().requires_grad_(True)
        let_train(self.model, context)
        self.params = dict(self.model.named_parameters())
        if self.settings.has_teacher:
            self.teacher = copy.deepcopy(self.model)  # an fp32 base would give the same tensors to another U-Net
            freeze_as(self.teacher, DTYPES[self.settings.training.precision])
            move(self.teacher, context.device)
        move(self.model, context.device)  # in place: the parameters stay the same objects

    def teach(self, noisy: "Tensor", timesteps: "Tensor", states: "Tensor") -> "Tensor":
        """Return what the model predicted before it was trained, (B, 4, h, w)."""
        return self.teacher(noisy, timesteps, states).sample

    def param_groups(self) -> "list[ParamGroup]":
        """Return the U-Net's parameters with their learning rate and decay."""
        return unet_param_groups(self.params, self.settings)

    def export(self, files: "ResultFiles") -> None:
        """Put the U-Net's weights in place of the base's."""
        for name, ldm_name in self.base.unet_table.items():
            files.replace_base_tensor(ldm_name, files.trained.late(name))
