"""One run from its directory to its result."""

import os
from pathlib import Path

from . import dreambooth, textual_inversion
from .config import check_shared
from .events import Reporter, StopRequest
from .locks import held
from .rundir import Run, RunDir, write_json

RECIPES = {"dreambooth": dreambooth.train, "textual_inversion": textual_inversion.train}


def work(path: Path, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train the run at `path`, export, write result.json, remove what only an unfinished run needs.

    One run at a time: a process left behind by a ComfyUI that was killed may still be saving its state. Of several processes
    that train together (RANK in the environment, set by the launcher) the first one alone locks and writes.
    """
    run_dir = RunDir(path)
    if os.environ.get("RANK", "0") != "0":
        if not run_dir.finished:
            _train(run_dir, device, reporter, stop)
        return
    with held(run_dir.lock, lambda: reporter.phase("waiting for another process that trains this run"), stop.check):
        if not run_dir.finished:
            run_dir.remove_partial_files()
            run, exported = _train(run_dir, device, reporter, stop)
            _finish(run_dir, run, exported, reporter)
    reporter.emit("done")


def _train(run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> tuple[Run, dict]:
    run = run_dir.load_run()
    check_shared(run.settings.batch_size, int(os.environ.get("WORLD_SIZE", "1")))  # the launcher's processes
    return run, RECIPES[run.settings.method](run, run_dir, device, reporter, stop)


def _finish(run_dir: RunDir, run: Run, exported: dict, reporter: Reporter) -> None:
    reporter.phase("")
    write_json(
        run_dir.result_json,
        {
            "method": run.settings.method,
            "trained": run.settings.train if run.settings.method == "dreambooth" else "embedding",
            "file": Path(run.export_path).name,
            "embedding": Path(run.embedding_path).name,
            "token": run.settings.token,
            "class_word": run.settings.class_word,
            "steps": run.settings.steps,
            "exported": exported,
            "warnings": reporter.warnings,
            "seconds": {phase: round(seconds, 2) for phase, seconds in reporter.seconds.items()},
        },
    )
    for leftover in (run_dir.best, run_dir.base, *([] if run.settings.keep_state else [run_dir.checkpoint])):
        leftover.unlink(missing_ok=True)
