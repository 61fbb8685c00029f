"""Embeddings of ComfyUI's folders: by the names that prompts use, by ComfyUI's own reader."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import comfy.sd1_clip
import folder_paths
import torch
from safetensors.torch import save_file

from ..trainer.config import MAX_VECTORS
from ..trainer.rundir import EMBEDDING_KEY, partial_file

log = logging.getLogger("subject_trainer")


@dataclass(frozen=True)
class Embedding:
    """The vectors of an embedding file, (V, 768) fp32."""

    vectors: torch.Tensor

    def fingerprint(self) -> str:
        return hashlib.sha256(self.vectors.numpy().tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        with partial_file(path) as partial:
            save_file({EMBEDDING_KEY: self.vectors}, partial)


def read_embedding(name: str) -> Embedding:
    """An embedding of ComfyUI's folders by the name that prompts use, with or without `embedding:`, or by its path.

    ComfyUI's own reader reads it, so what works in a prompt works here. ValueError when there is none, or it is not SD v1.5's.
    """
    name = name.strip().removeprefix("embedding:").strip()
    try:
        vectors = comfy.sd1_clip.load_embed(name, folder_paths.get_folder_paths("embeddings"), 768, "clip_l") if name else None
    except Exception as error:  # it does not expect a file that holds something else
        log.warning("The embedding %s: %s: %s", name, type(error).__name__, error)
        vectors = None
    if not torch.is_tensor(vectors) or vectors.ndim not in (1, 2):
        raise ValueError(
            f"There is no embedding {name!r} that can be read. Put the file into ComfyUI's models/embeddings and write its name."
        )
    vectors = vectors.detach().float().reshape(-1, vectors.shape[-1]).contiguous()
    if vectors.shape[-1] != 768 or not 1 <= len(vectors) <= MAX_VECTORS or not vectors.isfinite().all():
        raise ValueError(
            f"The embedding {name!r} has {len(vectors)} vectors of {vectors.shape[-1]} numbers. One for SD v1.5 has 1 to "
            f"{MAX_VECTORS} vectors of 768 finite numbers."
        )
    return Embedding(vectors)


def is_embedding(text: str) -> bool:
    """Whether a text names an embedding: `embedding:name`, or a file of a kind that embeddings have."""
    return text.startswith("embedding:") or Path(text).suffix.lower() in folder_paths.supported_pt_extensions


def embedding_fingerprint(name: str | None) -> str:
    """Changes when the file behind a typed name does; "" for a value that comes by a link, or names no embedding."""
    try:
        return read_embedding(name).fingerprint() if name else ""
    except ValueError:
        return ""
