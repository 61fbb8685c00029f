"""Embeddings in ComfyUI's folders, by the names that prompts use and with ComfyUI's own reader."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd1_clip
import folder_paths
import torch
from safetensors.torch import save_file

from ...trainer.run.files import partial_file
from ...trainer.run.messages import UserError
from ...trainer.run.run_dir import EMBEDDING_KEY
from ...trainer.run.setting_groups import MAX_VECTORS

log = logging.getLogger("subject_trainer")

WIDTH = 768
"""Numbers of a vector that SD v1.5's text encoder takes."""


@dataclass(frozen=True)
class Embedding:
    """The vectors of an embedding file, (V, 768) fp32."""

    vectors: torch.Tensor

    def fingerprint(self) -> str:
        """Return sha256, as hex, of the vectors."""
        return hashlib.sha256(self.vectors.numpy().tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write an embedding file as ComfyUI reads it."""
        with partial_file(path) as partial:
            save_file({EMBEDDING_KEY: self.vectors}, partial)


def read_embedding(name: str) -> Embedding:
    """Read an embedding by the name that prompts use, with or without `embedding:`, or by its path.

    ComfyUI's own reader reads it, so what works in a prompt works here. Raises UserError when there is none, or it is not one
    for SD v1.5.
    """
    name = _plain_name(name)
    try:
        folders = folder_paths.get_folder_paths("embeddings")
        vectors = comfy.sd1_clip.load_embed(name, folders, WIDTH, "clip_l") if name else None
    except Exception as error:  # of any kind: the reader does not expect a file that holds something else
        log.warning("The embedding %s: %s: %s", name, type(error).__name__, error)
        vectors = None
    if not torch.is_tensor(vectors) or vectors.ndim not in (1, 2):
        raise _no_embedding(name)
    vectors = vectors.detach().float().reshape(-1, vectors.shape[-1]).contiguous()
    if vectors.shape[-1] != WIDTH or not 1 <= len(vectors) <= MAX_VECTORS or not vectors.isfinite().all():
        raise UserError(
            "The embedding {name!r} has {count} vectors of {width} numbers. One for SD v1.5 has 1 to {most} vectors of 768 "
            "finite numbers.",
            name=name,
            count=len(vectors),
            width=vectors.shape[-1],
            most=MAX_VECTORS,
        )
    return Embedding(vectors)


def check_is_there(name: str) -> None:
    """Raise UserError where ComfyUI's reader would find no file of this name. Whether it can be read is not looked at."""
    name = _plain_name(name)
    folders = comfy.sd1_clip.expand_directory_list(folder_paths.get_folder_paths("embeddings"))
    endings = ("", *folder_paths.supported_pt_extensions)
    if not any(os.path.isfile(os.path.join(folder, name + ending)) for folder in folders for ending in endings):
        raise _no_embedding(name)


def _plain_name(name: str) -> str:
    return name.strip().removeprefix("embedding:").strip()


def _no_embedding(name: str) -> UserError:
    return UserError(
        "There is no embedding {name!r} that can be read. Put the file into ComfyUI's models/embeddings and write its name.",
        name=name,
    )


def is_embedding(text: str) -> bool:
    """Return whether a text names an embedding: `embedding:name`, or a file of a kind that embeddings have."""
    return text.startswith("embedding:") or Path(text).suffix.lower() in folder_paths.supported_pt_extensions


def embedding_fingerprint(name: Any) -> str:
    """Return the fingerprint of the embedding that a widget names, which changes when its file does.

    It is "" for a value that comes by a link (None here), for what is no text, and for a name of no embedding.
    """
    try:
        return read_embedding(name).fingerprint() if name and isinstance(name, str) else ""
    except UserError:
        return ""
