"""One run from its directory to its result."""

from pathlib import Path

from . import dreambooth, textual_inversion
from .events import Reporter, StopRequest
from .rundir import RunDir, write_json

RECIPES = {"dreambooth": dreambooth.train, "textual_inversion": textual_inversion.train}


def work(path: Path, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train the run at `path`, export, write result.json, remove what only an unfinished run needs."""
    run_dir = RunDir(path)
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
    reporter.emit("done", path=run.export_path)
