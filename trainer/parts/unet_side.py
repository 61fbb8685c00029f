"""What the parts of the U-Net share. Plain data, no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import nn

    from ..context import Context
    from ..run.settings import Settings
    from ..training.optimizers import ParamGroup


def let_train(unet: "UNet2DConditionModel", context: "Context") -> None:
    """Prepare the U-Net for backward passes, with gradient checkpointing if the settings say so."""
    from ..models.cpu_attention import use_fast_attention
    from ..models.sd15 import DTYPES

    training = context.settings.training
    unet.train()
    use_fast_attention(unet, context.device, DTYPES[training.precision])
    if training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()


def unet_param_groups(params: "dict[str, nn.Parameter]", settings: "Settings") -> "list[ParamGroup]":
    """Return parameters of the U-Net, or beside it, with their learning rate and decay."""
    from ..training.optimizers import ParamGroup

    return [ParamGroup(params, settings.optimizer.learning_rate, settings.optimizer.weight_decay)]
