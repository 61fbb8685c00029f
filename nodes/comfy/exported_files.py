"""The files that runs have exported: found again wherever they were moved, and the runs that they are of."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...trainer.run.messages import MessageError, UserError
from ...trainer.run.result_file import result_file
from ...trainer.run.run_dir import (
    Run,
    RunDir,
    at_step,
    finished_runs,
    is_same_run,
    key_of,
    passed_over,
    runs_with_key,
    step_number,
)
from .folders import is_child, runs_root

FOLDERS = {"checkpoint": "checkpoints", "lora": "loras", "embedding": "embeddings"}
"""ComfyUI's kind of folder for each kind of result."""


@dataclass(frozen=True)
class ExportedFiles:
    """The files of a finished run, where ComfyUI's loaders find them."""

    file: Path
    """Checkpoint, LoRA or embedding."""
    embedding: Path | None
    """The file with the token's own vectors: `file` itself where the result is an embedding."""


def exported_files(run_dir: RunDir) -> ExportedFiles | None:
    """Return what the run has exported, wherever it was moved below the folders that ComfyUI lists.

    None while the run is unfinished, or when a file of its result no longer exists.
    """
    files = None
    with passed_over(run_dir.path):
        if run_dir.finished:
            files = _files_of_result(run_dir.path.name, run_dir.result())
    return files


def _files_of_result(run_id: str, result: dict) -> ExportedFiles | None:
    """Return the files that a result.json names, if they are there."""
    kind, name, step = result["kind"], result.get("embedding", ""), (result.get("exported") or {}).get("step")
    file = _find(FOLDERS[kind], result["file"], run_id, step)
    embedding = _find("embeddings", name, run_id, step) if name else None
    if not file or (name and not embedding):
        return None
    return ExportedFiles(file, file if kind == "embedding" else embedding)


def _find(folder: str, name: str, run_id: str, step: int | None) -> Path | None:
    """Return the file of a run's result in one of ComfyUI's kinds of folders: under its name, or else moved or renamed.

    A file under another name must also be of this step: what was exported on the way is of the same run.
    """
    path = folder_paths.get_full_path(folder, Path(name).name)
    if path and is_exported_by(Path(path), run_id):
        return Path(path)
    for other in folder_paths.get_filename_list(folder):
        path = folder_paths.get_full_path(folder, other)
        found = result_file(Path(path)) if path else None
        if path and found and is_same_run(found.run, run_id) and found.step == str(step):
            return Path(path)
    return None


def is_exported_by(path: Path, run_id: str) -> bool:
    """Return whether a file is what a run has exported, the result or what led up to it."""
    found = result_file(path)
    return found is not None and is_same_run(found.run, run_id)


@dataclass(frozen=True)
class StepFile:
    """A file that a run has exported, at its end or on the way."""

    run_dir: RunDir
    path: Path
    step: int
    """The step that its weights are of."""


def step_file(path: str) -> StepFile:
    """Return the file of a run that `path` names: by its place, by ComfyUI's name for it, or by that which the run gave it.

    Looked up among the files that ComfyUI lists: `path` may come from anybody. Raises UserError when there is no such run.
    """
    for file in (*_named(Path(path.strip())), *_renamed(Path(path.strip()).name)):
        found = result_file(file)
        step = step_number(int(found.step)) if found and found.step.isdecimal() else None
        if found and step is not None:
            for run_dir in _folders_of(found.run) if key_of(found.run) else ():
                return StepFile(run_dir, file, step)
    raise UserError(
        "No run has exported {name!r}. Wire path of a training node, or write the name of a file that one has exported.",
        name=Path(path).name,
    )


def _named(path: Path) -> list[Path]:
    """Return the files in ComfyUI's folders of this name: first the one of the whole path, then those nearest to the root."""
    found = []
    for folder in FOLDERS.values():
        for name in folder_paths.get_filename_list(folder):
            file = folder_paths.get_full_path(folder, name) if Path(name).name == path.name else None
            if file:
                found.append((path not in (Path(file), Path(name)), len(Path(name).parts), Path(file)))
    return [file for *_, file in sorted(found, key=lambda one: one[:2])]


def _renamed(name: str) -> Iterator[Path]:
    """Yield the files in ComfyUI's folders that a run has exported under a name, and that have another one now."""
    run_id, _, step = Path(name).stem.partition("-step-")
    for run_dir in runs_with_key(runs_root(), key_of(run_id)):
        with passed_over(run_dir.path):
            wanted = int(step) if step.isdecimal() else run_dir.exported_step() if run_dir.finished else None
            for folder in FOLDERS.values():
                file = _steps_of(folder, run_id).get(wanted)
                if file:
                    yield file


def _steps_of(folder: str, run_id: str) -> dict[int | None, Path]:
    """Return the files of a run in one of ComfyUI's kinds of folders, whatever their names, by their steps."""
    steps: dict[int | None, Path] = {}
    for name in folder_paths.get_filename_list(folder):
        path = folder_paths.get_full_path(folder, name)
        found = result_file(Path(path)) if path else None
        if path and found and found.step.isdecimal() and is_same_run(found.run, run_id):
            steps.setdefault(int(found.step), Path(path))
    return steps


def step_paths(run: Run, files: ExportedFiles) -> list[str]:
    """Return the files of the steps that the run has kept on the way and that are still there, and last that of its result.

    A kept file of the result's own step, as early_stopping or the user's stop may leave, holds the same weights: it is left out.
    """
    last = _step_of(files.file)
    return [*(str(path) for path in _step_files(run, files) if _step_of(path) != last), str(files.file)]


def _step_of(path: Path) -> str:
    found = result_file(path)
    return found.step if found else ""


def _step_files(run: Run, files: ExportedFiles) -> list[Path]:
    """Return the files that the run has kept on the way, wherever they were moved below the folders that ComfyUI lists."""
    training = run.settings.training
    if not training.save_every:
        return []
    found, kept = _steps_of(FOLDERS[run.result_kind], run.id), []
    for step in range(training.save_every, training.steps, training.save_every):
        path = at_step(run.export_path, step)
        path = path if is_exported_by(path, run.id) else found.get(step)
        kept += [path] if path and path != files.file else []
    return kept


def files_of(run: Run, files: ExportedFiles) -> list[Path]:
    """Return all files of a run's result: what its training node gives, and the vectors of the token that go with them."""
    steps = _step_files(run, files)
    vectors = _steps_of("embeddings", run.id).values() if steps and run.has_token_vectors else ()
    return list(dict.fromkeys([files.file, *filter(None, [files.embedding]), *steps, *vectors]))


def loadable_runs() -> dict[str, dict[str, str | int | None]]:
    """Return when the runs whose result can be loaded were finished, and after which step, by their ids, newest first."""
    found = {}
    for run_dir in finished_runs(runs_root()):
        if exported_files(run_dir):
            with passed_over(run_dir.path):
                date = time.strftime("%Y-%m-%d %H:%M", time.localtime(run_dir.result_json.stat().st_mtime))
                found[run_dir.path.name] = {"date": date, "step": run_dir.exported_step()}
    return found


def finished_run(run_id: str) -> tuple[Run, ExportedFiles]:
    """Return a finished run and what it has exported, by its id or, if its folder was renamed, by its key.

    Raises UserError when there is none, or when it cannot be read.
    """
    for run_dir in _folders_of(run_id):
        files = exported_files(run_dir)
        if files:
            return _read_run(run_dir), files
    raise UserError(
        "There is no finished run {run!r}, or its exported file is gone. Press R to refresh the list, or train it.",
        run=run_id,
    )


def result_of_file(path: str) -> tuple[Run, ExportedFiles]:
    """Return the run of a file that it has exported, at its end or on the way, and the file with the token's vectors beside it.

    Raises UserError when no run has exported it, or when the run or the vectors are gone.
    """
    found = step_file(path)
    run = _read_run(found.run_dir)
    if run.result_kind == "embedding":
        return run, ExportedFiles(found.path, found.path)
    if not run.has_token_vectors:
        return run, ExportedFiles(found.path, None)
    vectors = _find("embeddings", at_step(run.embedding_path, found.step).name, run.id, found.step)
    if vectors is None:
        raise UserError("The embedding that goes with {name} is gone from models/embeddings.", name=found.path.name)
    return run, ExportedFiles(found.path, vectors)


def _folders_of(run_id: str) -> list[RunDir]:
    """Return the folders of a run: first that of its name, then copies of it; those that cannot be read last."""
    own = RunDir(runs_root() / run_id)
    copies = [run_dir for run_dir in runs_with_key(runs_root(), key_of(run_id)) if run_dir != own]
    is_there = is_child(runs_root(), own.path) and own.path.is_dir()
    return sorted([*([own] if is_there else []), *copies], key=lambda run_dir: not _is_readable(run_dir))


def _is_readable(run_dir: RunDir) -> bool:
    with passed_over(run_dir.path):
        return bool(run_dir.load_run().key)
    return False


def _read_run(run_dir: RunDir) -> Run:
    """Return what a run was asked for. Raises UserError when it cannot be read."""
    try:
        return run_dir.load_run()
    except (OSError, ValueError) as error:
        reason = error.message if isinstance(error, MessageError) else str(error)
        raise UserError("The run {run!r} cannot be read: {reason}", run=run_dir.path.name, reason=reason) from None
