"""The worker: trains one run directory and writes its result.

    python trainer/__main__.py RUN_DIR [--device cpu|cuda:0|mps] [--attached]
    python -m torch.distributed.run --nproc_per_node N trainer/__main__.py RUN_DIR --device cuda

Under the launcher, or accelerate launch, N processes share each batch.

Events go to stdout, one JSON object a line. Ctrl-C or SIGTERM stops the run with its state saved; so does, when it is
attached, a line on stdin or its end.
Exit code: 0 finished or stopped, 1 failed (an `error` event says why), 2 called wrongly.
"""

import argparse
import faulthandler
import os
import sys
import traceback
from pathlib import Path

# Started by path, so that pack folders may have any name: make this folder importable as the package `trainer`, and its
# modules not importable without it. (The Windows portable interpreter does not put the script's folder first.)
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Train one run directory.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--device", default="cpu", help="cpu (unless given), cuda:0, mps; cuda under a launcher")
    parser.add_argument("--attached", action="store_true", help="stop when stdin has a line, or ends")
    args = parser.parse_args()
    if not (args.run_dir / "run.json").is_file():
        parser.error(f"{args.run_dir} is not the folder of a run: it has no run.json.")
    faulthandler.enable()  # a crash in native code leaves its place in the log
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is local; never wait for a network

    from trainer.events import Reporter, Stopped, StopRequest

    # Events have the real stdout to themselves; whatever libraries print goes to stderr, also when they are not Python.
    first = os.environ.get("RANK", "0") == "0"  # of several processes that train together one talks with the host
    reporter = Reporter(os.fdopen(os.dup(1), "w", encoding="utf-8") if first else open(os.devnull, "w"))  # noqa: SIM115
    os.dup2(2, 1)
    stop = StopRequest(sys.stdin if args.attached and first else None)
    try:
        reporter.phase("starting")
        from trainer.worker import work

        work(args.run_dir, args.device, reporter, stop)
    except Stopped:
        reporter.emit("stopped")
    except Exception as error:
        traceback.print_exc()
        reporter.emit("error", text=describe(error, args.run_dir))
        return 1
    return 0


def describe(error: Exception, run_dir: Path) -> str:
    """What went wrong, for the artist; out of memory with what the run needs and how it needs less."""
    from trainer.needs import GB, needs, out_of_memory, remedies
    from trainer.rundir import RunDir

    kind = type(error).__name__
    if out_of_memory(error):
        run = RunDir(run_dir).load_run()
        memory = needs(run.settings, run.dataset.resolution, trains_word=bool(run.embedding)).memory / GB
        return (
            f"The memory ran out: with SD v1.5 this run needs about {memory:.1f} GB on the device. Close other programs that use "
            f"it, or make the run need less with: {remedies(run.settings)}."
        )
    if isinstance(error, OSError) and error.errno == 28:
        return f"The disk is full: {error.filename or 'the output folder'}. Free some space and queue the graph again."
    if kind == "AcceleratorError" or "CUDA error" in str(error):
        return (
            f"The device failed ({str(error).splitlines()[0]}). Queue the graph again to go on from the last saved state; if it "
            "fails again, restart the computer, and look for a newer driver."
        )
    if kind in ("ValueError", "TrainingError"):
        return str(error)
    return f"{kind}: {error}"


if __name__ == "__main__":
    sys.exit(main())
