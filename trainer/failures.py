"""Why something failed, in words for the user. Plain data, no torch."""

import errno
from pathlib import Path

from .optional_libraries import broken_library, repair
from .run.memory_errors import out_of_memory
from .run.messages import Message, MessageError, message
from .run.resources import GB, estimate, remedies
from .run.run_dir import Run, RunDir


def describe(error: Exception, failed_run: Path | None = None) -> Message:
    """Return what went wrong: in a few words, or with what to do about it where it is what a run has failed with.

    `failed_run`: the folder of that run.
    """
    kind = type(error).__name__
    if out_of_memory(error):  # also where it has become another error's cause on its way here
        return _memory_ran_out(RunDir(failed_run).load_run()) if failed_run else message("the memory ran out")
    if isinstance(error, MessageError):
        return error.message
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _disk_is_full(error) if failed_run else message("the disk is full")
    library = broken_library(error) if failed_run else ""
    if library:
        return message(
            "{library} is missing or broken in ComfyUI's Python ({reason}). Install it with: {command}. Then queue the graph "
            "again.",
            library=library,
            reason=f"{kind}: {error}".splitlines()[0][:300],
            command=repair(library, error),
        )
    if failed_run and (kind == "AcceleratorError" or "CUDA error" in str(error)):
        return message(
            "The device failed ({reason}). Queue the graph again to go on from the last saved state; if it fails again, restart "
            "the computer, and look for a newer driver.",
            reason=str(error).splitlines()[0][:500],
        )
    return message("{kind}: {error}", kind=kind, error=str(error)[: 2000 if failed_run else 500])


def _memory_ran_out(run: Run) -> Message:
    return message(
        "The memory ran out: with SD v1.5 this run needs about {memory:.1f} GB on the device. Close other programs that use "
        "it, or make the run need less with: {remedies}.",
        memory=estimate(run).memory / GB,
        remedies=remedies(run),
    )


def _disk_is_full(error: OSError) -> Message:
    return message(
        "The disk is full: {file}. Free some space and queue the graph again.",
        file=error.filename or message("the output folder"),
    )
