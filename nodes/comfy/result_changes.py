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
    """Return, once, whether somebody has asked that a run which can be trained on gives up its result."""
    asked = run_dir.path.name in _reopened
    _reopened.discard(run_dir.path.name)
    return asked and run_dir.can_go_on()


def remember_returned(run: Run, files: ExportedFiles) -> None:
    """Remember that a node has returned the run's result, with the files of the steps that were kept on the way."""
    paths = (RunDir(runs_root() / run.id).result_json, *files_of(run, files))
    _returned[paths] = list(map(_state, paths))


def lost_results() -> int:
    """Return how many returned results are gone or given up: what the fingerprints of training nodes change with."""
    for paths, states in list(_returned.items()):
        if list(map(_state, paths)) != states:
            _lost.append(paths)
            del _returned[paths]
    return len(_lost) + len(_given_up)


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
