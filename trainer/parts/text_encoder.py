"""The whole text encoder is trained."""

from typing import TYPE_CHECKING

from ..run.messages import Message, message
from .memory import TEXT_ENCODER, TEXT_ENCODER_WEIGHTS, BaseSize, PartMemory
from .text_side import let_train, text_param_groups

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

    from ..context import Context
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

PREFIX = "text_encoder."
"""Before transformers' names, so that no other part has the same."""


class TextEncoder:
    """CLIP's text encoder, every weight of which is trained; with a CLIP skip, every weight up to that layer."""

    new_ids = ()
    learning_rate = 0.0
    """The U-Net's."""
    published: "tuple[float, int] | None" = (2e-6, 800)
    """diffusers' (examples/dreambooth/README.md)."""

    @staticmethod
    def title(settings: "Settings") -> Message:
        """Return what is trained."""
        return message("text encoder")

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but parts of the text side use."""
        return ("text_learning_rate",)

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device."""
        return PartMemory(trained_weights={TEXT_ENCODER: TEXT_ENCODER_WEIGHTS})

    def __init__(self, context: "Context", text_encoder: "CLIPTextModel", tokenizer: "CLIPTokenizer"):
        self.settings = context.settings
        let_train(text_encoder.requires_grad_(True), context)
        self.params = {PREFIX + name: p for name, p in text_encoder.named_parameters()}

    def changes(self, ids: "Tensor") -> list[bool]:
        """Return for each caption of token ids (C, 77) that its states depend on what is trained."""
        return [True] * len(ids)

    def param_groups(self) -> "list[ParamGroup]":
        """Return the text encoder's parameters with their learning rate and decay."""
        return text_param_groups(self.params, self.settings)

    def export(self, files: "ResultFiles") -> None:
        """Put the text encoder's weights in place of the base's."""
        from ..models.key_mapping import ldm_text_name

        for name in self.params:
            files.replace_base_tensor(ldm_text_name(name.removeprefix(PREFIX)), files.trained.late(name))
