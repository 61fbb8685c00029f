"""The run that a training node asks for: which name it has, and where it exports to."""

from dataclasses import replace
from pathlib import Path

import folder_paths

from ...trainer.run.choice import Asked, Choice
from ...trainer.run.run_dir import Run, runs_with_key
from .base_model import Base
from .embeddings import Embedding
from .exported_files import FOLDERS, exported_files, is_exported_by
from .folders import embeddings_folder, runs_root, tokenizer_path
from .lora_files import Lora


def make_run(
    name: str, asked: Asked, choice: Choice, base: Base, embedding: Embedding | None = None, lora: Lora | None = None
) -> Run:
    """Return the run of what was chosen, of these weights, and of the vectors and the LoRA that it starts from.

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
        lora=lora.fingerprint() if lora else "",
        export_path="",
        tokenizer_path=tokenizer_path(),
    )
    return with_its_places(run)


def with_its_places(run: Run) -> Run:
    """Return the run under the name that it already has, if it has one, with paths of export that are free or its own."""
    run = replace(run, name=known_name(run))
    if run.result_kind == "embedding":
        stem = run.id if taken_embedding(run) else run.settings.token
        return replace(run, export_path=str(embeddings_folder() / f"{stem}.safetensors"))
    path = Path(folder_paths.get_output_directory()) / FOLDERS[run.result_kind] / f"{run.id}.safetensors"
    # Without blanks, at which the name of an embedding ends in ComfyUI's prompts.
    embedding_path = embeddings_folder() / f"{'-'.join(run.id.split())}.safetensors" if run.has_token_vectors else ""
    return replace(run, export_path=str(path), embedding_path=str(embedding_path))


def known_name(run: Run) -> str:
    """Return the name under which the run was begun, or its own: to rename a run is not to train it anew."""
    known = {run_dir.path.name: run_dir for run_dir in runs_with_key(runs_root(), run.key)}
    # Of several folders with its key, which a user has copied: 1. one whose result is there, 2. one under this name, 3. one that
    # has a saved state, 4. any.
    order = sorted(known, key=lambda name: (exported_files(known[name]) is None, name != run.id, not known[name].state.is_file()))
    return order[0].removesuffix(f"-{run.key}") if order else run.name


def taken_embedding(run: Run) -> str:
    """Return the file name of an embedding that has the token's name and is not this run's, or "" when there is none."""
    for name in folder_paths.get_filename_list("embeddings"):  # with those of subfolders, which prompts find too
        if Path(name).stem.lower() == run.settings.token.lower():
            path = folder_paths.get_full_path("embeddings", name)
            if path and not is_exported_by(Path(path), run.id):
                return name
    return ""
