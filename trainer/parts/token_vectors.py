"""The token has embedding vectors of its own, as in Textual Inversion (Gal et al. 2022); beside a LoRA, too."""

from typing import TYPE_CHECKING

from ..run.messages import Message, message
from ..run.names import DREAMBOOTH, TEXTUAL_INVERSION
from .memory import EMBEDDING_WIDTH, TEXT_ENCODER, TEXT_ENCODER_WEIGHTS, TOKEN_VECTORS, BaseSize, PartMemory, bytes_when_frozen
from .text_side import let_train, text_rate

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

    from ..context import Context
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup


TOKEN_RATE = 1e-4
"""A usual learning rate of the token beside the model. Adam at the model's 2e-6 moves it by a tenth of its size in a whole run.

It is the rate at which cloneofsimo's pivotal tuning goes on with the embedding while it tunes the U-Net: continue_inversion_lr in
https://github.com/cloneofsimo/lora/blob/master/training_scripts/multivector_example.sh.
"""


class TokenVectors:
    """Vectors (V, 768) that stand for the token; DreamBooth that trains the U-Net alone leaves them as they were given."""

    learning_rate = TOKEN_RATE
    published: "tuple[float, int] | None" = None

    @staticmethod
    def are_trained(settings: "Settings") -> bool:
        """Return whether the vectors learn on; beside a U-Net that is trained alone they only mean what they were given as."""
        from . import TRAIN

        unet, *text = TRAIN[settings.dreambooth.train]
        return settings.method == TEXTUAL_INVERSION or bool(text) or unet.result_kind == "lora"

    @staticmethod
    def title(settings: "Settings") -> Message | None:
        """Return what is trained."""
        return message("embedding") if TokenVectors.are_trained(settings) else None

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the settings that nothing but parts of the text side use."""
        return ("text_learning_rate",) if TokenVectors.are_trained(settings) else ()

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part keeps on the device: with trained vectors the frozen text encoder, too."""
        if not TokenVectors.are_trained(settings):
            return PartMemory()
        weights = EMBEDDING_WIDTH * settings.inversion.vectors
        frozen = {TEXT_ENCODER: bytes_when_frozen(TEXT_ENCODER_WEIGHTS, settings.training.precision)}
        return PartMemory(trained_weights={TOKEN_VECTORS: weights}, frozen_bytes=frozen, exported_bytes=4 * weights)

    def __init__(self, context: "Context", text_encoder: "CLIPTextModel", tokenizer: "CLIPTokenizer"):
        from ..models.cpu_attention import use_fast_attention
        from ..models.sd15 import DTYPES
        from ..models.token_embedding import embedding_table, initial_vectors, load_vectors, new_ids, train_rows

        self.settings, inversion = context.settings, context.settings.inversion
        table = embedding_table(text_encoder)
        if context.run.embedding:
            start = load_vectors(context.embedding_file)
        elif self.settings.method == DREAMBOOTH:  # what CLIP reads the token as: so the first step is the base's
            start = table[tokenizer(self.settings.token, add_special_tokens=False).input_ids].float()
        else:
            start = initial_vectors(table, tokenizer, inversion.initializer, self.settings.class_word, inversion.vectors)
        self.new_ids = new_ids(table, len(start))
        self.vectors = train_rows(text_encoder, self.new_ids, start).to(context.device).vectors
        self.vectors.requires_grad_(self.are_trained(self.settings))
        use_fast_attention(text_encoder, context.device, DTYPES[self.settings.training.precision])
        if self.settings.method == TEXTUAL_INVERSION:
            let_train(text_encoder, context)
        self.given = self.vectors.detach()  # fp32, also once the text encoder works in the compute dtype
        self.max_norm = None
        if inversion.norm_limit:
            self.max_norm = inversion.norm_limit * table.float().norm(dim=1).median().to(context.device)

    def changes(self, ids: "Tensor") -> list[bool]:
        """Return for each caption of token ids (C, 77) whether it holds the token while the token is trained."""
        from ..data.caption_cache import has_any

        return has_any(ids, self.new_ids) if self.vectors.requires_grad else [False] * len(ids)

    def param_groups(self) -> "list[ParamGroup]":
        """Return the vectors with their learning rate; without decay, which would only make the token weaker."""
        from ..training.optimizers import ParamGroup

        if not self.vectors.requires_grad:
            return []
        rate = text_rate(self.settings)
        return [ParamGroup({"token_vectors": self.vectors}, rate, weight_decay=0.0, max_row_norm=self.max_norm)]

    def export(self, files: "ResultFiles") -> None:
        """Give the result's embedding file its vectors."""
        files.embedding = files.trained.get("token_vectors", self.given)
