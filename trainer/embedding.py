"""A token embedding table of which only chosen rows are trained."""

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel


class TrainableRows(nn.Module):
    """A frozen embedding table and trainable vectors that stand for some of its ids, or for ids behind its end.

    The table itself cannot change: it takes no gradient, and no optimizer knows it.
    """

    def __init__(self, table: nn.Embedding, ids: list[int], vectors: Tensor):
        super().__init__()
        self.table = table.requires_grad_(False)
        self.vectors = nn.Parameter(vectors.detach().clone())  # (V, 768)
        slots = torch.full((max(table.num_embeddings, *(i + 1 for i in ids)),), -1)
        slots[ids] = torch.arange(len(ids))
        self.register_buffer("slots", slots, persistent=False)  # id -> which vector, -1: none

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., 768) of token ids (...)."""
        slots = self.slots[ids]
        known = self.table(ids.clamp(max=self.table.num_embeddings - 1))
        return torch.where((slots >= 0)[..., None], self.vectors[slots.clamp(min=0)].to(known.dtype), known)


def train_rows(text_encoder: CLIPTextModel, ids: list[int], vectors: Tensor | None = None) -> TrainableRows:
    """Make rows of the text encoder's table trainable: `ids`, from `vectors` (V, 768) or from what they are."""
    parent = getattr(text_encoder, "text_model", text_encoder).embeddings  # flat since transformers 5.6
    table = parent.token_embedding
    parent.token_embedding = TrainableRows(table, ids, table.weight[ids] if vectors is None else vectors)
    return parent.token_embedding


def table_of(text_encoder: CLIPTextModel) -> Tensor:
    """The whole table (49408, 768)."""
    return getattr(text_encoder, "text_model", text_encoder).embeddings.token_embedding.weight
