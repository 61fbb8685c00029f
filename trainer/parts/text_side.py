"""What the parts of the text side share. Plain data, no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import CLIPTextModel

    from ..context import Context
    from ..run.settings import Settings
    from ..training.optimizers import ParamGroup


def text_rate(settings: "Settings") -> float:
    """Return the learning rate of the text side: its own, or that of the U-Net."""
    return settings.dreambooth.text_learning_rate or settings.optimizer.learning_rate


def let_train(text_encoder: "CLIPTextModel", context: "Context") -> None:
    """Prepare the text encoder for backward passes, with gradient checkpointing if the settings say so."""
    from ..models.cpu_attention import use_fast_attention
    from ..models.sd15 import DTYPES

    training = context.settings.training
    text_encoder.train()
    use_fast_attention(text_encoder, context.device, DTYPES[training.precision])
    if training.gradient_checkpointing:
        # Not the reentrant kind, which has no gradients where no input needs them.
        text_encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def text_param_groups(params: "dict[str, nn.Parameter]", settings: "Settings") -> "list[ParamGroup]":
    """Return parameters of the text encoder with their learning rate and decay."""
    from ..training.optimizers import ParamGroup

    return [ParamGroup(params, text_rate(settings), settings.optimizer.weight_decay)]
