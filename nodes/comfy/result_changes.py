"""What changes when the files of a result do: ComfyUI's cache must not answer with what is gone."""

from pathlib import Path

import folder_paths

from ...trainer.run.messages import UserError
from ...trainer.run.run_dir import Run, RunDir
from .exported_files import ExportedFiles, files_of, finished_run, result_of_file
from .folders import runs_root

_returned: dict[tuple[Path, ...], list] = {}
"""The files of the results that training nodes have returned, and how they were then."""
_lost: list[tuple[Path, ...]] = []
"""Those of them that were deleted, moved or made anew since: ComfyUI's cache must not answer with them."""
_loaded: dict[tuple[Path, ...], list] = {}
"""The same of the results that were loaded from their files."""
_changed: list[tuple[Path, ...]] = []
"""Those of them that are gone or others since."""
_reopened: set[str] = set()
"""The runs whose result the next graph that asks for them gives up, to train on."""
_given_up: list[str] = []
"""All that ever were: ComfyUI's cache must not answer with their results."""


def reopen(run_dir: RunDir) -> None:
    """Let a run that the user has ended early train on with the next graph that asks for it. Until then its result stays."""
    if run_dir.path.name not in _reopened:
        _reopened.add(run_dir.path.name)
        _given_up.append(run_dir.path.name)


def asked_to_go_on(run_dir: RunDir) -> bool:
    """Return whether somebody has asked that a run which can be trained on gives up its result, and it has not yet."""
    if not run_dir.can_go_on():  # any more: what it may be later, nobody has asked
        _reopened.discard(run_dir.path.name)
    return run_dir.path.name in _reopened


def give_up_result(run_dir: RunDir) -> None:
    """Remove result.json of a run that was asked to go on, if it still can; its exported file stays until the next one."""
    if asked_to_go_on(run_dir):
        run_dir.result_json.unlink()
        _reopened.discard(run_dir.path.name)


def remember_returned(run: Run, files: ExportedFiles) -> None:
    """Remember that a node has returned the run's result, with the files of the steps that were kept on the way."""
    paths = (RunDir(runs_root() / run.id).result_json, *files_of(run, files))
    _returned[paths] = list(map(_state, paths))


def lost_results() -> int:
    """Return how many returned results are gone or given up: what the fingerprints of training nodes change with."""
    return _count_changes(_returned, _lost) + len(_given_up)


def remember_loaded(run: Run, files: ExportedFiles) -> None:
    """Remember that a result was loaded from its files, with the base that it needs."""
    changed_files()  # these same files among them, as they were before
    paths = _files_loaded(run, files)
    _loaded[paths] = list(map(_state, paths))


def changed_files() -> int:
    """Return how many loaded results have changed: what LoadFinetuned's fingerprint changes with where a link names the file."""
    return _count_changes(_loaded, _changed)


def _count_changes(remembered: dict[tuple[Path, ...], list], changed: list[tuple[Path, ...]]) -> int:
    for paths, states in list(remembered.items()):
        if list(map(_state, paths)) != states:
            changed.append(paths)
            del remembered[paths]
    return len(changed)


def result_fingerprint(run_id: str, path: str) -> str:
    """Return what changes with the files of a result, and with that of the base that it needs; "" without a result."""
    try:
        run, files = result_of_file(path) if path.strip() else finished_run(run_id)
    except UserError:
        return ""
    paths = (runs_root() / run_id / "result.json", *_files_loaded(run, files))
    return str([(str(path), _state(path)) for path in paths])


def _files_loaded(run: Run, files: ExportedFiles) -> tuple[Path, ...]:
    base = folder_paths.get_full_path("checkpoints", run.base_checkpoint) if run.base_checkpoint else None
    return tuple(Path(path) for path in (files.file, files.embedding, base) if path)


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written anew; () when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
