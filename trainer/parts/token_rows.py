"""The rows of CLIP's embedding table that make up the token are trained: the study's recipe, beside the U-Net."""

from typing import TYPE_CHECKING

from ..run.messages import Message, message
from .memory import TEXT_ENCODER, TEXT_ENCODER_WEIGHTS, BaseSize, PartMemory, bytes_when_frozen
from .text_side import text_rate
from .token_vectors import TOKEN_RATE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

    from ..context import Context
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup


class TokenRows:
    """The rows of the token's CLIP tokens ("mysks": those of "my" and "sks")."""

    new_ids = ()
    learning_rate = TOKEN_RATE
    published: "tuple[float, int] | None" = None

    @staticmethod
    def title(settings: "Settings") -> Message:
        """Return what is trained."""
        return message("token")

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but parts of the text side use."""
        return ("text_learning_rate",)

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device: the frozen text encoder, beside which the rows weigh nothing."""
        return PartMemory(frozen_bytes={TEXT_ENCODER: bytes_when_frozen(TEXT_ENCODER_WEIGHTS, settings.training.precision)})

    def __init__(self, context: "Context", text_encoder: "CLIPTextModel", tokenizer: "CLIPTokenizer"):
        from ..models.cpu_attention import use_fast_attention
        from ..models.sd15 import DTYPES
        from ..models.token_embedding import token_ids, train_rows

        self.settings = context.settings
        use_fast_attention(text_encoder, context.device, DTYPES[self.settings.training.precision])
        self.ids = token_ids(tokenizer, self.settings.token)
        self.vectors = train_rows(text_encoder, self.ids).to(context.device).vectors

    def changes(self, ids: "Tensor") -> list[bool]:
        """Return for each caption of token ids (C, 77) whether it holds one of the rows."""
        from ..data.caption_cache import has_any

        return has_any(ids, self.ids)

    def param_groups(self) -> "list[ParamGroup]":
        """Return the rows with their learning rate; without decay, which would only make the token weaker."""
        from ..training.optimizers import ParamGroup

        return [ParamGroup({"token_vectors": self.vectors}, text_rate(self.settings), weight_decay=0.0)]

    def export(self, files: "ResultFiles") -> None:
        """Put the rows into the base's embedding table."""
        files.replace_token_rows(self.ids, files.trained["token_vectors"])
