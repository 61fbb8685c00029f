"""What changes when the files of a result do: ComfyUI's cache must not answer with what is gone."""

from pathlib import Path

import folder_paths

from ...trainer.run.messages import UserError
from ...trainer.run.run_dir import RunDir
from .exported_files import ExportedFiles, finished_run, result_of_file
from .folders import runs_root

_returned: dict[tuple[Path, ...], list] = {}
"""The files of the results that training nodes have returned, and how they were then."""
_lost: list[tuple[Path, ...]] = []
"""Those of them that were deleted, moved or made anew since: ComfyUI's cache must not answer with them."""


def remember_returned(run_dir: RunDir, files: ExportedFiles) -> None:
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
