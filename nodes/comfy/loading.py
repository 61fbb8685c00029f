"""Loading what a run has exported, as ComfyUI's own loaders do."""

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths

from ...trainer.run.messages import UserError, message
from ...trainer.run.run_dir import Run
from .base_model import Base
from .exported_files import ExportedFiles
from .patches import with_text_layer


def load_result(run: Run, files: ExportedFiles, bases: dict[str, tuple]) -> tuple:
    """Return MODEL, CLIP, VAE of a result, CLIP with the CLIP skip that was trained with; for an embedding its base's.

    `bases` holds what is loaded of bases, by their fingerprints, so that the steps of a run share one. Raises UserError when a
    LoRA or an embedding has lost its base.
    """
    if run.result_kind == "checkpoint":
        model, clip, vae = load_checkpoint(files.file)
    else:
        if run.base_fingerprint not in bases:
            bases[run.base_fingerprint] = load_base(run)
        model, clip, vae = bases[run.base_fingerprint]
    if run.result_kind == "lora":
        model, clip = apply_lora(model, clip, load_lora(files.file))
    return model, with_text_layer(clip, run.settings.training.text_layer), vae


def load_checkpoint(path: Path) -> tuple:
    """Return MODEL, CLIP, VAE of a checkpoint file, as ComfyUI's own loader gives them."""
    return comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=folder_paths.get_folder_paths("embeddings"))[:3]


def load_lora(path: Path) -> dict:
    """Return the tensors of a LoRA file by name: what ComfyUI's LORA_MODEL sockets carry."""
    tensors: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    return tensors


def apply_lora(model, clip, lora: dict) -> tuple:
    """Return clones of MODEL and CLIP with the LoRA at strength 1, as ComfyUI's own loader applies it."""
    return comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)


def load_base(run: Run) -> tuple:
    """Return MODEL, CLIP, VAE that a run was trained on. Raises UserError when the checkpoint is unknown, gone or another."""
    remedy = message("Load its base with Load Checkpoint, and use the exported file with ComfyUI's own nodes.")
    path = folder_paths.get_full_path("checkpoints", run.base_checkpoint) if run.base_checkpoint else None
    if path is None:
        raise UserError(
            "The base of {run} ({base}) is not there. {remedy}",
            run=run.id,
            base=run.base_checkpoint or message("not a checkpoint file"),
            remedy=remedy,
        )
    loaded = load_checkpoint(Path(path))
    if Base(*loaded).fingerprint() != run.base_fingerprint:
        raise UserError(
            "{base} is not what {run} was trained on: it was patched or replaced, or ComfyUI runs with another precision now. "
            "{remedy}",
            base=run.base_checkpoint,
            run=run.id,
            remedy=remedy,
        )
    return loaded
