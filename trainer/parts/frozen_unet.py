"""The U-Net stays as it is: gradients flow through it to the token's vectors, none are kept for it."""

from typing import TYPE_CHECKING

from .memory import FROZEN_FLOP, UNET, BaseSize, PartMemory, bytes_when_frozen
from .unet_side import let_train

if TYPE_CHECKING:
    from ..context import Context
    from ..models.sd15 import BaseModel
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

ACTIVATIONS = 0.98e9
"""Bytes a sample: none of a layer's inputs is kept for the gradient of its weights."""


class FrozenUNet:
    """The U-Net that the vectors of the token are trained through: none of its own weights is."""

    result_kind = "embedding"
    learning_rate = 5e-3
    """That of the vectors that are trained through it; setting_groups.py takes it."""
    published: "tuple[float, int] | None" = None
    teach = None

    @staticmethod
    def title(settings: "Settings") -> None:
        """Return None: nothing is trained."""

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but this part uses: none."""
        return ()

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device."""
        frozen = bytes_when_frozen(base.unet_weights, settings.training.precision)
        return PartMemory(frozen_bytes={UNET: frozen}, activations=ACTIVATIONS, flop=FROZEN_FLOP)

    def __init__(self, context: "Context", base: "BaseModel"):
        from ..models.sd15 import DTYPES, freeze_as, move

        self.model = base.unet()
        freeze_as(self.model, DTYPES[context.settings.training.precision])
        let_train(self.model, context)
        move(self.model, context.device)

    def param_groups(self) -> "list[ParamGroup]":
        """Return nothing: none of it is trained."""
        return []

    def export(self, files: "ResultFiles") -> None:
        """Export nothing: it is the base's."""
