"""The token's embedding vectors: which ids stand for the token, where its vectors start, and a table of which they alone are
trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ..dataset.captions import split_at_word
from ..parts.part import TextPart
from ..run.messages import UserError
from ..run.run_dir import EMBEDDING_KEY
from .sd15 import CONTEXT_LENGTH, tokenize


class TrainableRows(nn.Module):
    """A frozen embedding table and trainable vectors that stand for some of its ids, or for ids behind its end.

    The table itself changes only where the whole text encoder is trained.
    """

    slots: Tensor

    def __init__(self, table: nn.Embedding, ids: list[int], vectors: Tensor):
        super().__init__()
        self.table = table
        self.vectors = nn.Parameter(vectors.detach().clone())  # (V, 768)
        slots = torch.full((max(table.num_embeddings, *(i + 1 for i in ids)),), -1)
        slots[ids] = torch.arange(len(ids))
        self.register_buffer("slots", slots, persistent=False)  # id -> which vector, -1: none

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., 768) of token ids (...)."""
        slots = self.slots[ids]
        known = self.table(ids.clamp(max=self.table.num_embeddings - 1))
        return torch.where((slots >= 0)[..., None], self.vectors[slots.clamp(min=0)].to(known.dtype), known)


def train_rows(text_encoder: CLIPTextModel, ids: list[int], vectors: Tensor | None = None) -> TrainableRows:
    """Make rows of the text encoder's table trainable: `ids`, from `vectors` (V, 768) or from what they are now."""
    parent = _embeddings(text_encoder)
    table = parent.token_embedding
    parent.token_embedding = TrainableRows(table, ids, table.weight[ids] if vectors is None else vectors)
    return parent.token_embedding


def embedding_table(text_encoder: CLIPTextModel) -> Tensor:
    """Return the whole table (49408, 768)."""
    return _embeddings(text_encoder).token_embedding.weight


def _embeddings(text_encoder: CLIPTextModel) -> Any:
    """Return the module that has the table as `token_embedding`: an nn.Embedding, or the TrainableRows put in its place."""
    return getattr(text_encoder, "text_model", text_encoder).embeddings  # flat since transformers 5.6


def token_ids(tokenizer: CLIPTokenizer, token: str) -> list[int]:
    """Return the rows of CLIP's table that make up the token, each once: "mysks" -> those of "my" and "sks"."""
    return sorted(set(tokenizer(token, add_special_tokens=False).input_ids))


def new_ids(table: Tensor, count: int) -> list[int]:
    """Return ids behind the end of CLIP's table, for a token with `count` vectors of its own."""
    return list(range(len(table), len(table) + count))


def tokenize_with(tokenizer: CLIPTokenizer, texts: Sequence[str], token: str, ids: Sequence[int]) -> Tensor:
    """Return token ids (T, 77) with `ids` where the token stands as a word, whatever CLIP would make of it.

    Raises UserError, naming the text, where it lies beyond what CLIP reads.
    """
    room = CONTEXT_LENGTH - 2
    rows = []
    for text in texts:
        before, *after = split_at_word(text, token)
        pieces = tokenizer(before, add_special_tokens=False).input_ids
        for part in after:
            pieces += [*ids, *tokenizer(part, add_special_tokens=False).input_ids]
        pieces = pieces[:room]
        if after and ids[-1] not in pieces:
            raise UserError(
                "In the caption {caption!r} the token lies beyond the 77 pieces that CLIP reads, of which its vectors take "
                "{count}. Shorten the caption.",
                caption=text,
                count=len(ids),
            )
        padding = [tokenizer.pad_token_id] * (room - len(pieces))
        rows.append([tokenizer.bos_token_id, *pieces, tokenizer.eos_token_id, *padding])
    return torch.tensor(rows)


def initial_vectors(table: Tensor, tokenizer: CLIPTokenizer, initializer: str, class_word: str, count: int) -> Tensor:
    """Return (count, 768) fp32: the initializer's embeddings spread over the vectors; without one, the mean of the class word's.

    With fewer vectors than embeddings each is the mean of its share; with more, neighbours start alike. Raises UserError
    without a word.
    """
    words = initializer or class_word
    ids = tokenizer(words, add_special_tokens=False).input_ids
    if not ids:
        raise UserError("The initializer {words!r} has no words. Write what the subject is, for example 'toy'.", words=words)
    rows = table[ids].float()
    if not initializer:
        return rows.mean(dim=0, keepdim=True).repeat(count, 1)
    if count >= len(rows):
        return rows[[i * len(rows) // count for i in range(count)]]
    return torch.stack([share.mean(dim=0) for share in rows.tensor_split(count)])


def load_vectors(path: Path) -> Tensor:
    """Return (V, 768) fp32 of an embedding file as this pack writes it."""
    return load_file(path)[EMBEDDING_KEY].float()


def tokenize_captions(tokenizer: CLIPTokenizer, texts: Sequence[str], token: str, text_parts: Sequence[TextPart]) -> Tensor:
    """Return token ids (T, 77): the token means the new ids that one of the parts gives it, otherwise what CLIP makes of it."""
    new_ids = [i for part in text_parts for i in part.new_ids]
    return tokenize_with(tokenizer, texts, token, new_ids) if new_ids else tokenize(tokenizer, list(texts))
