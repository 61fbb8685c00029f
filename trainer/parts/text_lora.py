"""LoRA beside the text encoder's layers, in the same file as the U-Net's."""

from typing import TYPE_CHECKING

from ..run.messages import Message, message
from .adapters import TEXT_PREFIX, TEXT_TARGETS, adapter_tensors, add_adapters
from .memory import TEXT_ENCODER, TEXT_ENCODER_WEIGHTS, TEXT_LORA, BaseSize, PartMemory, bytes_when_frozen
from .text_encoder import PREFIX
from .text_side import let_train, text_param_groups

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

    from ..context import Context
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup

WEIGHTS_PER_RANK = {"attention": 73_728, "attention_and_feed_forward": 165_888, "all": 165_888}
"""Of CLIP-L's text encoder."""


class TextLoRA:
    """Adapters beside the layers of CLIP's text encoder, which is frozen; with a CLIP skip, up to that layer."""

    new_ids = ()
    learning_rate = 5e-5
    """That of cloneofsimo's README (https://github.com/cloneofsimo/lora), beside 1e-4 for the U-Net's."""
    published: "tuple[float, int] | None" = (learning_rate, 500)

    @staticmethod
    def title(settings: "Settings") -> Message:
        """Return what is trained."""
        return message("LoRA of the text encoder")

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but parts of the text side use."""
        return ("text_learning_rate",)

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device."""
        adapters = settings.dreambooth.lora_rank * WEIGHTS_PER_RANK[settings.dreambooth.lora_layers]
        frozen = {TEXT_ENCODER: bytes_when_frozen(TEXT_ENCODER_WEIGHTS, settings.training.precision)}
        return PartMemory(trained_weights={TEXT_LORA: adapters}, frozen_bytes=frozen, exported_bytes=2 * adapters)

    def __init__(self, context: "Context", text_encoder: "CLIPTextModel", tokenizer: "CLIPTokenizer"):
        import torch

        from ..models.lora_file import go_on_from, is_text, layer_of, text_stems
        from ..models.sd15 import move

        self.settings = context.settings
        pattern = TEXT_TARGETS[self.settings.dreambooth.lora_layers]
        params = add_adapters(text_encoder, pattern, self.settings, torch.float32)
        if context.run.lora:
            depth = text_encoder.config.num_hidden_layers  # what a CLIP skip leaves out is of no use here
            go_on_from(
                context.lora_file, params, text_stems, self.settings, lambda name: is_text(name) and layer_of(name) < depth
            )
        move(text_encoder, context.device)
        let_train(text_encoder, context)
        self.params = {PREFIX + name: p for name, p in params.items()}

    def changes(self, ids: "Tensor") -> list[bool]:
        """Return for each caption of token ids (C, 77) that its states depend on what is trained."""
        return [True] * len(ids)

    def param_groups(self) -> "list[ParamGroup]":
        """Return the adapters' parameters with their learning rate and decay."""
        return text_param_groups(self.params, self.settings)

    def export(self, files: "ResultFiles") -> None:
        """Give the result's LoRA file its tensors."""
        params = {name.removeprefix(PREFIX): files.trained[name] for name in self.params}
        files.lora |= adapter_tensors(params, TEXT_PREFIX, self.settings)
