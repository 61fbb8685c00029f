"""What an exported file says of itself: of which run it is, and of which step. Plain data, no torch."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .files import tensor_metadata


@dataclass(frozen=True)
class ResultFile:
    """The run that a file was exported by, by its metadata."""

    run: str
    """The run's id; "" for a file that no run has exported."""
    step: str
    """The step that its weights are of."""


def result_file(path: Path) -> ResultFile | None:
    """Return what a safetensors file says of itself, by its header alone; None for what is no such file."""
    if path.suffix != ".safetensors":
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=10_000)
def _read(path: Path, changed: int, size: int) -> ResultFile | None:
    """Read the header once for each state of the file: a search passes by every model that ComfyUI lists."""
    try:
        said = tensor_metadata(path)
    except (OSError, ValueError):
        return None
    return ResultFile(said.get("subject_trainer.run", ""), said.get("subject_trainer.steps", ""))
