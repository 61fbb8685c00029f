"""What the user reads when a process ended without a word. Plain data, no torch."""

from .messages import Message, message
from .resources import remedies
from .run_dir import Run, RunDir

KILLED = message("it was killed, most often for want of memory")
ONE_OF_SEVERAL = message("one of its processes was killed or crashed, most often for want of memory")


def unexpected_end(code: int, run: Run, run_dir: RunDir) -> Message:
    """Return why the worker ended with this exit code: below 0 by a signal, from 0xC0000000 on by a status of Windows."""
    if code == -9:
        return _died(KILLED, run, run_dir)
    if not 0 <= code < 0xC0000000:
        return _died(message("it crashed with code {code}", code=code), run, run_dir)
    if run.settings.training.devices > 1:  # the code is that of their launcher
        return _died(ONE_OF_SEVERAL, run, run_dir)
    return message(
        "The training process ended unexpectedly (exit code {code}). Queue the graph again to go on from the last saved "
        "state; details are in {log}.",
        code=code,
        log=str(run_dir.log),
    )


def lost_process(run_dir: RunDir) -> Message:
    """Return that one of the processes that train together has ended without a word."""
    return _died(ONE_OF_SEVERAL, run_dir.load_run(), run_dir)


def _died(reason: Message, run: Run, run_dir: RunDir) -> Message:
    return message(
        "The training process ended unexpectedly ({reason}). Queue the graph again to go on from the last saved state; if it "
        "ends so again, make the run need less memory with: {remedies}. Details are in {log}.",
        reason=reason,
        remedies=remedies(run),
        log=str(run_dir.log),
    )
