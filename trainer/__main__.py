"""The worker: trains one run directory and writes its result; of a finished one it draws what drawing.json asks for.

    python trainer/__main__.py RUN_DIR [--device cpu|cuda:0|xpu:0|mps] [--attached]
    python -m torch.distributed.run --nproc_per_node N trainer/__main__.py RUN_DIR --device cuda

Under the launcher, or accelerate launch, N processes share each batch.

Events go to stdout, one JSON object a line; of several processes the first reports, and the one that fails. A stop request ends
the run with its state saved: Ctrl-C or SIGTERM, or, when it is attached, a line on stdin or its end instead; then it also waits
for the line "begin".
Exit code: 0 finished or stopped, 1 failed (an `error` event says why), 2 called wrongly.
"""

import argparse
import faulthandler
import gc
import os
import sys
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

# Started by path, so that pack folders may have any name: make this folder importable as the package `trainer`, and its
# modules not importable without it. (The Windows portable interpreter does not put the script's folder first.)
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]


if TYPE_CHECKING:
    from trainer.run.events import Reporter
    from trainer.run.messages import Message


def main() -> int:
    """Train the run that the command line names and return the exit code."""
    parser = argparse.ArgumentParser(description="Train one run directory.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--device", default="cpu", help="cpu (unless given), cuda:0, xpu:0, mps; cuda under a launcher")
    parser.add_argument("--attached", action="store_true", help="begin when stdin says so, stop when it ends")
    args = parser.parse_args()
    if not (args.run_dir / "run.json").is_file():
        parser.error(f"{args.run_dir} is not the folder of a run: it has no run.json.")
    faulthandler.enable()  # a crash in native code leaves its place in the log
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is local; never wait for a network

    gc.disable()  # it would search what the libraries make, which stays, again and again: a fifth of the time that they take

    from trainer.failures import describe
    from trainer.optional_libraries import hide_optional_libraries
    from trainer.run import ranks
    from trainer.run.events import STARTING, Reporter, Stopped
    from trainer.run.run_dir import RunDir
    from trainer.run.stop_request import StoppedError, StopRequest

    # Events have the real stdout to themselves; whatever libraries print goes to stderr, also when they are not Python.
    first = ranks.rank() == 0  # of several processes that train together one talks with the host
    told = Reporter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    reporter = told if first else Reporter(open(os.devnull, "w"))  # noqa: SIM115
    os.dup2(2, 1)
    together = ranks.world_size() > 1
    if together:
        ranks.hold_sigterm()  # before any thread is started
    stop = StopRequest(sys.stdin if args.attached and first else None, follows=not first)
    if together:
        ranks.watch(lambda: leave_failed(args.run_dir, told), stop.request)
    try:
        reporter.phase(STARTING)
        hide_optional_libraries()
        from trainer.worker import recipe_of, work

        recipe_of(RunDir(args.run_dir).load_run())  # its libraries take seconds, in which the host still saves the base
        gc.freeze()  # nor is it searched later, at the latest when Python ends, which would take a second
        gc.enable()
        if args.attached and first:
            stop.wait_for_begin()
        work(args.run_dir, args.device, reporter, stop)
    except StoppedError:
        reporter.emit(Stopped())
    except Exception as error:
        if together and isinstance(error, RuntimeError):  # as a lost connection is, in whatever words
            ranks.let_them_tell()
        log_traceback()
        tell_failure(describe(error, args.run_dir), args.run_dir, told)
        return 1
    if not first:
        ranks.wait_for_first()
    return 0


def log_traceback() -> None:
    """Write the traceback of the exception to the log, with the number of this process where several train together."""
    from trainer.run import ranks

    prefix = f"[rank {ranks.rank()}] " if ranks.world_size() > 1 else ""
    sys.stderr.write(textwrap.indent(traceback.format_exc(), prefix))
    sys.stderr.flush()


def tell_failure(reason: "Message", run_dir: Path, reporter: "Reporter") -> None:
    """Report why the run failed: once, by the first of the processes that train together."""
    from trainer.run import ranks
    from trainer.run.events import Failed
    from trainer.run.run_dir import RunDir

    if ranks.world_size() > 1:
        ranks.tell_first(RunDir(run_dir).failure_lock, lambda: reporter.emit(Failed(reason)))
    else:
        reporter.emit(Failed(reason))


def leave_failed(run_dir: Path, reporter: "Reporter") -> NoReturn:
    """Report that another process has ended without a word, and end this one, which may be waiting for it."""
    from trainer.run.run_dir import RunDir
    from trainer.run.unexpected_end import lost_process

    try:
        tell_failure(lost_process(RunDir(run_dir)), run_dir, reporter)
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
