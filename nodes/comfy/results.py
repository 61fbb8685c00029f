"""Runs and their results: where they are exported to, whether they are there, and how they are loaded."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths

from ...trainer.run.choice import Asked, Choice
from ...trainer.run.files import read_json
from ...trainer.run.messages import MessageError, UserError, message
from ...trainer.run.result_file import result_file
from ...trainer.run.run_dir import Run, RunDir, at_step, finished_runs, is_same_run, key_of, passed_over, runs_with_key
from .base_model import Base
from .embeddings import Embedding
from .folders import embeddings_folder, is_child, runs_root, tokenizer_path
from .lora_files import LoraFile
from .patches import with_text_layer

FOLDERS = {"checkpoint": "checkpoints", "lora": "loras", "embedding": "embeddings"}
"""ComfyUI's kind of folder for each kind of result."""


def make_run(
    name: str, asked: Asked, choice: Choice, base: Base, embedding: Embedding | None = None, lora: LoraFile | None = None
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
    order = sorted(known, key=lambda name: (exported(known[name]) is None, name != run.id, not known[name].checkpoint.is_file()))
    return order[0].removesuffix(f"-{run.key}") if order else run.name


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
    """Return what the run has exported, wherever it was moved below the folders that ComfyUI lists.

    None while the run is unfinished, or when a file of its result no longer exists.
    """
    files = None
    with passed_over(run_dir.path):
        if run_dir.finished:
            files = _exported(run_dir.path.name, read_json(run_dir.result_json))
    return files


def _exported(run_id: str, result: dict) -> Exported | None:
    """Return the files that a result.json names, if they are there."""
    kind, name, step = result["kind"], result.get("embedding", ""), (result.get("exported") or {}).get("step")
    file = _find(FOLDERS[kind], result["file"], run_id, step)
    embedding = _find("embeddings", name, run_id, step) if name else None
    if not file or (name and not embedding):
        return None
    return Exported(file, file if kind == "embedding" else embedding)


def _find(folder: str, name: str, run_id: str, step: int | None) -> Path | None:
    """Return the file of a run's result in one of ComfyUI's kinds of folders: under its name, or else moved or renamed.

    A file under another name must also be of this step: what was exported on the way is of the same run.
    """
    path = folder_paths.get_full_path(folder, Path(name).name)
    if path and _is_exported_by(Path(path), run_id):
        return Path(path)
    for other in folder_paths.get_filename_list(folder):
        path = folder_paths.get_full_path(folder, other)
        found = result_file(Path(path)) if path else None
        if path and found and is_same_run(found.run, run_id) and found.step == str(step):
            return Path(path)
    return None


def _is_exported_by(path: Path, run_id: str) -> bool:
    found = result_file(path)
    return found is not None and is_same_run(found.run, run_id)


_returned: dict[tuple[Path, ...], list] = {}
"""The files of the results that training nodes have returned, and how they were then."""
_lost: list[tuple[Path, ...]] = []
"""Those of them that were deleted, moved or made anew since: ComfyUI's cache must not answer with them."""


def remember_returned(run_dir: RunDir, files: Exported) -> None:
    """Remember that a node has returned the run's result."""
    paths = (run_dir.result_json, files.file, *([files.embedding] if files.embedding else []))
    _returned[paths] = list(map(_state, paths))


def lost_results() -> int:
    """Return how many returned results are gone: what the fingerprints of training nodes change with."""
    for paths, states in list(_returned.items()):
        if list(map(_state, paths)) != states:
            _lost.append(paths)
            del _returned[paths]
    return len(_lost)


@dataclass(frozen=True)
class StepFile:
    """A file that a run has exported, at its end or on the way."""

    run_dir: RunDir
    path: Path
    step: int
    """The step that its weights are of."""


def step_file(path: str) -> StepFile:
    """Return the file of a run that `path` names.

    Looked up by its name below ComfyUI's folders: `path` may come from anybody. Raises UserError when there is no such run.
    """
    for folder in FOLDERS.values():
        file = folder_paths.get_full_path(folder, Path(path).name)
        found = result_file(Path(file)) if file else None
        if file and found and found.step.isdecimal():
            for run_dir in runs_with_key(runs_root(), key_of(found.run)):
                return StepFile(run_dir, Path(file), int(found.step))
    raise UserError(
        "No run has exported {name!r}. Wire path of a training node, or write the name of a file that one has exported.",
        name=Path(path).name,
    )


def step_paths(run: Run, files: Exported) -> list[str]:
    """Return the files of the steps that the run has kept on the way and that are still there, and last that of its result."""
    training = run.settings.training
    steps = range(training.save_every, training.steps, training.save_every) if training.save_every else ()
    kept = [at_step(run.export_path, step) for step in steps]
    return [*(str(path) for path in kept if _is_exported_by(path, run.id)), str(files.file)]


def result_fingerprint(run_id: str, path: str) -> str:
    """Return what changes with the files of a result, and with that of the base that it needs; "" without a result."""
    try:
        run, files = result_of_file(path) if path.strip() else finished_run(run_id)
    except UserError:
        return ""
    result = runs_root() / run_id / "result.json"
    base = folder_paths.get_full_path("checkpoints", run.base_checkpoint) if run.base_checkpoint else None
    return str([(str(path), _state(Path(path))) for path in (result, files.file, files.embedding, base) if path])


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written anew; () when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def output_picture(path: Path) -> dict[str, str]:
    """Return how the page asks ComfyUI for a picture below the output folder."""
    folder = path.parent.relative_to(folder_paths.get_output_directory())
    return {"filename": path.name, "subfolder": folder.as_posix(), "type": "output"}


def loadable_runs() -> dict[str, dict[str, str | int | None]]:
    """Return when the runs whose result can be loaded were finished, and after which step, by their ids, newest first."""
    found = {}
    for run_dir in finished_runs(runs_root()):
        if exported(run_dir):
            with passed_over(run_dir.path):
                status, result = run_dir.result_json.stat(), read_json(run_dir.result_json)
                date = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.st_mtime))
                found[run_dir.path.name] = {"date": date, "step": (result.get("exported") or {}).get("step")}
    return found


def finished_run(run_id: str) -> tuple[Run, Exported]:
    """Return a finished run and what it has exported, by its id or, if its folder was renamed, by its key.

    Raises UserError when there is none, or when it cannot be read.
    """
    own = RunDir(runs_root() / run_id)
    known = [own] if is_child(runs_root(), own.path) else []
    for run_dir in (*known, *runs_with_key(runs_root(), key_of(run_id))):
        files = exported(run_dir)
        if files is None:
            continue
        return _read_run(run_dir), files
    raise UserError(
        "There is no finished run {run!r}, or its exported file is gone. Press R to refresh the list, or train it.",
        run=run_id,
    )


def result_of_file(path: str) -> tuple[Run, Exported]:
    """Return the run of a file that it has exported, at its end or on the way, and the file with the token's vectors beside it.

    Raises UserError when no run has exported it, or when the run or the vectors are gone.
    """
    found = step_file(path)
    run = _read_run(found.run_dir)
    if run.result_kind == "embedding":
        return run, Exported(found.path, found.path)
    if not run.has_token_vectors:
        return run, Exported(found.path, None)
    vectors = _find("embeddings", at_step(run.embedding_path, found.step).name, run.id, found.step)
    if vectors is None:
        raise UserError("The embedding that goes with {name} is gone from models/embeddings.", name=found.path.name)
    return run, Exported(found.path, vectors)


def _read_run(run_dir: RunDir) -> Run:
    """Return what a run was asked for. Raises UserError when it cannot be read."""
    try:
        return run_dir.load_run()
    except (OSError, ValueError) as error:
        reason = error.message if isinstance(error, MessageError) else str(error)
        raise UserError("The run {run!r} cannot be read: {reason}", run=run_dir.path.name, reason=reason) from None


def load_result(run: Run, files: Exported, bases: dict[str, tuple]) -> tuple:
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
