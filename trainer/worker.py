"""One run from its directory to its result, and what more it draws once it is finished."""

from collections.abc import Callable
from pathlib import Path

from .context import Context, make_accelerator
from .run import ranks
from .run.drawing import Drawing
from .run.events import WAITING, Done, Reporter
from .run.files import write_json
from .run.locks import held
from .run.names import DREAMBOOTH
from .run.run_dir import Run, RunDir
from .run.settings import check_batch_split
from .run.stop_request import StopRequest
from .training.trainer import ExportInfo


def work(path: Path, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train the run at `path`, export, write result.json, remove what only an unfinished run needs; a finished one draws.

    One run at a time: a process left behind by a ComfyUI that was killed may still be saving its state. Of several processes
    that train together the first one alone locks and writes.
    """
    run_dir = RunDir(path)
    if ranks.rank():
        if not run_dir.finished:
            _train(run_dir, device, reporter, stop)
        return
    with held(run_dir.lock, lambda: reporter.phase(WAITING), stop.check):
        if not run_dir.finished:
            run_dir.remove_partial_files()
            run, info = _train(run_dir, device, reporter, stop)
            _finish(run_dir, run, info, reporter)
        elif run_dir.drawing.is_file():
            run_dir.remove_partial_files()
            _draw(run_dir, device, reporter, stop)
    reporter.emit(Done())


def _train(run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> tuple[Run, ExportInfo]:
    run = run_dir.load_run()
    check_batch_split(run.settings.training.batch_size, ranks.world_size())
    accelerator = make_accelerator(device, run.settings.training.precision)
    accelerator.wait_for_everyone()  # for the first to hold the lock: only then is the saved state there for all
    context = Context(run, run_dir, accelerator, reporter, stop)
    return run, recipe_of(run)(context)


def _draw(run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> None:
    from .recipes.more_samples import draw

    run, step = run_dir.load_run(), run_dir.exported_step()
    accelerator = make_accelerator(device, run.settings.training.precision)
    context = Context(run, run_dir, accelerator, reporter, stop)
    draw(context, Drawing.read(run_dir), run.settings.training.steps if step is None else step)


def recipe_of(run: Run) -> Callable[[Context], ExportInfo]:
    """Return the recipe that trains the run; only its libraries are loaded."""
    if run.settings.method == DREAMBOOTH:
        from .recipes.dreambooth import train
    else:
        from .recipes.textual_inversion import train
    return train


def _finish(run_dir: RunDir, run: Run, info: ExportInfo, reporter: Reporter) -> None:
    reporter.end_phase()
    write_json(
        run_dir.result_json,
        {
            "method": run.settings.method,
            "kind": run.result_kind,
            "file": Path(run.export_path).name,
            "embedding": Path(run.embedding_path).name,
            "token": run.settings.token,
            "class_word": run.settings.class_word,
            "steps": run.settings.training.steps,
            "exported": info.to_json(),
            "warnings": [warning.to_json() for warning in reporter.warnings],
            "seconds": {phase: round(seconds, 2) for phase, seconds in reporter.seconds.items()},
        },
    )
    # A run that the user has ended may be taken up again: then it needs what it would have after a stop.
    best = [] if info.finished_early else [run_dir.best]
    state = [] if info.finished_early or run.settings.training.keep_state else [run_dir.state]
    for leftover in (run_dir.base, run_dir.finish, *best, *state):
        leftover.unlink(missing_ok=True)
