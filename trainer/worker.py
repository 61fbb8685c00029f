"""One run from its directory to its result."""

from pathlib import Path

from filelock import FileLock, Timeout

from . import dreambooth, textual_inversion
from .events import Reporter, StopRequest
from .rundir import RunDir, write_json

RECIPES = {"dreambooth": dreambooth.train, "textual_inversion": textual_inversion.train}


def work(path: Path, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train the run at `path`, export, write result.json, remove what only an unfinished run needs.

    One process at a time: another one, left behind by a ComfyUI that was killed, may still be saving its state.
    """
    run_dir = RunDir(path)
    lock = FileLock(run_dir.lock)
    reporter.phase("waiting for another process that trains this run")
    while True:
        stop.check()
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            continue
    with lock:
        if not run_dir.finished:
            run_dir.remove_partial_files()
            _train(run_dir, device, reporter, stop)
    reporter.emit("done")


def _train(run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> None:
    run = run_dir.load_run()
    RECIPES[run.settings.method](run, run_dir, device, reporter, stop)
    reporter.phase("")
    write_json(
        run_dir.result_json,
        {
            "method": run.settings.method,
            "file": Path(run.export_path).name,
            "token": run.settings.token,
            "class_word": run.settings.class_word,
            "steps": run.settings.steps,
            "seconds": {phase: round(seconds, 2) for phase, seconds in reporter.seconds.items()},
        },
    )
    for leftover in (run_dir.checkpoint, run_dir.base):
        leftover.unlink(missing_ok=True)
