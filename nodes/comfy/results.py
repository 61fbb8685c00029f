"""Runs and their results: where they are exported to, whether they are there, and how they are loaded."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from safetensors import SafetensorError, safe_open

from ...trainer.run.choice import Asked, Choice
from ...trainer.run.files import read_json
from ...trainer.run.messages import MessageError, UserError, message
from ...trainer.run.run_dir import Run, RunDir, finished_runs
from .base_model import Base
from .embeddings import Embedding
from .folders import embeddings_folder, runs_root, tokenizer_path
from .patches import with_text_layer

FOLDERS = {"checkpoint": "checkpoints", "lora": "loras", "embedding": "embeddings"}
"""ComfyUI's kind of folder for each kind of result."""


def make_run(name: str, asked: Asked, choice: Choice, base: Base, embedding: Embedding | None = None) -> Run:
    """Return the run of what was chosen, of these weights, and of the vectors that the token starts from.

    The layer of the text encoder that is trained through is that of the base's CLIP.
    """
    run = Run(
        name=name,
        settings=choice.settings.replace(text_layer=base.text_layer),
        dataset=asked.dataset,
        class_dataset=asked.class_dataset,
        preset=asked.preset,
        choice=choice.told,
        base_fingerprint=base.fingerprint(),
        base_checkpoint=base.checkpoint_name(),
        embedding=embedding.fingerprint() if embedding else "",
        export_path="",
        tokenizer_path=tokenizer_path(),
    )
    return with_export_paths(run)


def with_export_paths(run: Run) -> Run:
    """Return the run with paths of export that are free, or lead to what the run itself exported before."""
    if run.result_kind == "embedding":
        stem = run.id if taken_embedding(run) else run.settings.token
        return replace(run, export_path=str(embeddings_folder() / f"{stem}.safetensors"))
    path = Path(folder_paths.get_output_directory()) / FOLDERS[run.result_kind] / f"{run.id}.safetensors"
    # Without blanks, at which the name of an embedding ends in ComfyUI's prompts.
    embedding_path = embeddings_folder() / f"{'-'.join(run.id.split())}.safetensors" if run.embedding else ""
    return replace(run, export_path=str(path), embedding_path=str(embedding_path))


def taken_embedding(run: Run) -> str:
    """Return the file name of an embedding that has the token's name and is not this run's, or "" when there is none."""
    for name in folder_paths.get_filename_list("embeddings"):  # with those of subfolders, which prompts find too
        if Path(name).stem.lower() == run.settings.token.lower():
            path = folder_paths.get_full_path("embeddings", name)
            if path and not _is_exported_by(Path(path), run.id):
                return name
    return ""


@dataclass(frozen=True)
class Exported:
    """The files of a finished run, where ComfyUI's loaders find them."""

    file: Path
    """Checkpoint, LoRA or embedding."""
    embedding: Path | None
    """The file with the token's own vectors: `file` itself where the result is an embedding."""


def exported(run_dir: RunDir) -> Exported | None:
    """Return what the run has exported; None while it is unfinished, or when a file of its result no longer exists."""

    def find(folder: str, name: str) -> Path | None:
        path = folder_paths.get_full_path(folder, Path(name).name)
        return Path(path) if path and _is_exported_by(Path(path), run_dir.path.name) else None

    try:
        result = read_json(run_dir.result_json)
        kind, name = result["kind"], result.get("embedding", "")
        file = find(FOLDERS[kind], result["file"])
        embedding = find("embeddings", name) if name else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not file or (name and not embedding):
        return None
    return Exported(file, file if kind == "embedding" else embedding)


def _is_exported_by(path: Path, run_id: str) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("subject_trainer.run") == run_id
    except (OSError, SafetensorError):
        return False


def output_picture(path: Path) -> dict[str, str]:
    """Return how the page asks ComfyUI for a picture below the output folder."""
    folder = path.parent.relative_to(folder_paths.get_output_directory())
    return {"filename": path.name, "subfolder": folder.as_posix(), "type": "output"}


def finished_run_ids() -> list[str]:
    """Return the ids of the runs whose result can be loaded, newest first."""
    return [run_dir.path.name for run_dir in finished_runs(runs_root()) if exported(run_dir)]


def finished_run(run_id: str) -> tuple[Run, Exported]:
    """Return a finished run and what it has exported. Raises UserError when either cannot be read."""
    run_dir = RunDir(runs_root() / run_id)
    files = exported(run_dir) if run_id in finished_run_ids() else None
    if files is None:
        raise UserError(
            "There is no finished run {run!r}, or its exported file is gone. Press R to refresh the list, or train it.",
            run=run_id,
        )
    try:
        return run_dir.load_run(), files
    except (OSError, ValueError) as error:
        reason = error.message if isinstance(error, MessageError) else str(error)
        raise UserError("The run {run!r} cannot be read: {reason}", run=run_id, reason=reason) from None


def load_result(run: Run, files: Exported) -> tuple:
    """Return MODEL, CLIP, VAE of a finished run, CLIP with the CLIP skip that was trained with; for an embedding its base's.

    Raises UserError when a LoRA or an embedding has lost its base.
    """
    model, clip, vae = load_checkpoint(files.file) if run.result_kind == "checkpoint" else load_base(run)
    if run.result_kind == "lora":
        model = apply_lora(model, load_lora(files.file))
    return model, with_text_layer(clip, run.settings.training.text_layer), vae


def load_checkpoint(path: Path) -> tuple:
    """Return MODEL, CLIP, VAE of a checkpoint file, as ComfyUI's own loader gives them."""
    return comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=folder_paths.get_folder_paths("embeddings"))[:3]


def load_lora(path: Path) -> dict:
    """Return the tensors of a LoRA file by name: what ComfyUI's LORA_MODEL sockets carry."""
    tensors: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    return tensors


def apply_lora(model, lora: dict):
    """Return a clone of the model with the LoRA at strength 1, as ComfyUI's own loader applies it."""
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


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
