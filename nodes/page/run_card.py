"""A run as the page shows it: its curves, its sample pictures, a few facts. Always of bounded size. Plain data, no torch."""

import itertools
import threading
import time
from functools import lru_cache
from pathlib import Path

from ...trainer.run.evaluations import latest_by_step, read_evaluations, step_to_use
from ...trainer.run.files import bounded_file
from ...trainer.run.metrics_file import (
    MAX_BYTES,
    MEASURED,
    is_measurement,
    metrics_entry,
    photos_loss,
)
from ...trainer.run.presets import widget_values
from ...trainer.run.run_dir import Run, RunDir

MAX_POINTS = 400
"""Points that a curve has at most: more than a node is wide."""
MAX_SAMPLES = 48
"""So many of the newest sample pictures are shown."""
CACHED_RUNS = 16
"""So many runs have their curves kept in memory."""
MAX_TEXT = 2000
"""So many characters of a text of the run are shown: a prompt has 77 tokens."""
SMOOTHING = 0.1
"""Weight of a new point in the smoothed curve."""


def card(run_dir: RunDir) -> dict:
    """Return what the page shows of a run. Raises ValueError or OSError when it is not a run of this format."""
    run = run_dir.load_run()
    return {
        "run": run_dir.path.name,
        "facts": facts(run, run_dir),
        "steps": run.settings.training.steps,
        "decided": widget_values(run.settings.method, run.settings.flat()),
        "prompts": [prompt[:MAX_TEXT] for prompt in run.settings.samples.sample_prompts],
        "samples": samples(run_dir),
        "grid": run_dir.grid.name if run_dir.grid.is_file() else "",
        "can_go_on": run_dir.can_go_on(),
        **curves_of(run_dir.metrics).points(),
    }


def facts(run: Run, run_dir: RunDir) -> dict:
    """Return the run's token, class, base and so on."""
    settings, finished = run.settings, run_dir.finished
    when = (run_dir.result_json if finished else run_dir.run_json).stat().st_mtime
    evaluated = latest_by_step(read_evaluations(run_dir.evaluations))
    return {
        "token": settings.token,
        "class": settings.class_word[:MAX_TEXT],
        "trigger": settings.trigger(settings.token)[:MAX_TEXT],
        "base": run.base_checkpoint[:MAX_TEXT],
        "photos": len(run.dataset.photos),
        "finished": finished,
        "exported_step": run_dir.exported_step() if finished else None,
        "step_to_use": step_to_use(evaluated) if len(evaluated) > 1 else None,
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(when)),
    }


def samples(run_dir: RunDir) -> list[dict]:
    """Return the newest sample pictures, oldest first: {"step", "prompt", "file"}."""
    newest = sorted((*place, path.name) for path, place in run_dir.pictures().items())[-MAX_SAMPLES:]
    return [{"step": step, "prompt": prompt, "file": file} for step, prompt, file in newest]


class Curves:
    """The curves of a metrics.jsonl. What was read of the file is kept, so that only what is new must be read."""

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        self._forget(None)

    def points(self) -> dict:
        """Return {"loss": {"step", "mean", "smooth"}, "measured": {"step", "held_out", ...}}: at most MAX_POINTS numbers each.

        The losses of steps are those of the photos, as the measurements beside them are.
        """
        with self._lock:
            self._read_new_lines()
            return {"loss": self._loss(), "measured": self._measured()}

    def _loss(self) -> dict[str, list[int | float]]:
        """Return the mean loss of about equal parts of the run, the last step of each part, and the smoothed means."""
        count = len(self._losses)
        edges = [count * i // MAX_POINTS for i in range(MAX_POINTS + 1)] if count > MAX_POINTS else list(range(count + 1))
        parts = list(itertools.pairwise(edges))
        means = [sum(self._losses[a:b]) / (b - a) for a, b in parts]
        smooth: list[float] = []
        for mean in means:
            smooth.append(mean if not smooth else smooth[-1] + SMOOTHING * (mean - smooth[-1]))
        return {"step": [self._steps[b - 1] for _, b in parts], "mean": means, "smooth": smooth}

    def _measured(self) -> dict[str, list[int | float | None]]:
        """Return evenly spaced measurements by name, always with the newest; None where one lacks a value."""
        stride = -(-len(self._measurements) // MAX_POINTS) or 1
        rows = self._measurements[::-1][::stride][::-1]
        names = [name for name in ("step", *MEASURED) if any(name in row for row in rows)]
        return {name: [row.get(name) for row in rows] for name in names}

    def _forget(self, file_id: int | None) -> None:
        self._file_id, self._offset, self._rest = file_id, 0, b""
        self._steps: list[int | float] = []
        self._losses: list[float] = []
        self._measurements: list[dict] = []

    def _read_new_lines(self) -> None:
        try:
            status = self._path.stat()
        except OSError:
            self._forget(None)
            return
        if status.st_ino != self._file_id or status.st_size < self._offset:  # a run that goes on writes it anew
            self._forget(status.st_ino)
        with bounded_file(self._path, MAX_BYTES) as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for entry in filter(None, map(metrics_entry, lines)):
            if "loss" in entry:
                self._losses.append(photos_loss(entry))
                self._steps.append(entry["step"])
            elif is_measurement(entry):
                self._measurements.append({name: entry[name] for name in ("step", *MEASURED) if name in entry})


@lru_cache(maxsize=CACHED_RUNS)
def curves_of(path: Path) -> Curves:
    """Return the curves of a file, with what was read of it before."""
    return Curves(path)
