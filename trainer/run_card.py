"""What the page shows of a run: its curves, its sample pictures, a few facts. Always of bounded size. Plain data, no torch."""

import itertools
import threading
import time
from functools import lru_cache
from pathlib import Path

from .rundir import Run, RunDir, metrics_entry, read_json

POINTS = 400
"""So many points of a curve at most: more than a node is wide."""
SAMPLES = 48
"""So many of the newest sample pictures."""
KEPT = 16
"""So many runs whose curves are kept in memory."""
SMOOTHING = 0.1
"""Weight of a new point in the smoothed curve."""


class Curves:
    """The losses of a metrics.jsonl, read on where the file has grown."""

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        self._restart(None)

    def _restart(self, file_id: int | None) -> None:
        self._file_id, self._offset, self._rest = file_id, 0, b""
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._measured: list[dict] = []

    def _read_on(self) -> None:
        try:
            status = self._path.stat()
        except OSError:
            return self._restart(None)
        if status.st_ino != self._file_id or status.st_size < self._offset:  # written anew when a run goes on
            self._restart(status.st_ino)
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            entry = metrics_entry(line)
            if entry is None:
                continue
            if "loss" in entry:
                self._losses.append(entry["loss"])
                self._steps.append(entry["step"])
            else:
                self._measured.append(entry)
        return None

    def shown(self) -> dict:
        """{"loss": {"step", "mean", "smooth"}, "measured": {"step", "held_out", ...}}: lists of at most POINTS numbers."""
        with self._lock:
            self._read_on()
            count = len(self._losses)
            edges = [count * i // POINTS for i in range(POINTS + 1)] if count > POINTS else list(range(count + 1))
            parts = list(itertools.pairwise(edges))
            means = [sum(self._losses[a:b]) / (b - a) for a, b in parts]
            smooth: list[float] = []
            for mean in means:
                smooth.append(mean if not smooth else smooth[-1] + SMOOTHING * (mean - smooth[-1]))
            loss = {"step": [self._steps[b - 1] for _, b in parts], "mean": means, "smooth": smooth}
            stride = -(-len(self._measured) // POINTS) or 1
            rows = self._measured[::-1][::stride][::-1]  # the newest always
            names = sorted({name for row in rows for name in row})
            return {"loss": loss, "measured": {name: [row.get(name) for row in rows] for name in names}}


@lru_cache(maxsize=KEPT)
def curves(path: Path) -> Curves:
    """Those of a file, with what was read of it before."""
    return Curves(path)


def samples(run_dir: RunDir) -> list[dict]:
    """The newest sample pictures, oldest first: {"step", "prompt", "file"}."""
    found = []
    for path in run_dir.samples.glob("step-*-*.png"):
        parts = path.stem.split("-")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            found.append({"step": int(parts[1]), "prompt": int(parts[2]), "file": path.name})
    return sorted(found, key=lambda sample: (sample["step"], sample["prompt"]))[-SAMPLES:]


def card(run_dir: RunDir) -> dict:
    """What the page shows of a run. ValueError or OSError when it is not a run of this format."""
    run = run_dir.load_run()
    result = read_json(run_dir.result_json) if run_dir.finished else {}
    return {
        "run": run_dir.path.name,
        "facts": facts(run, run_dir, result),
        "steps": run.settings.steps,
        "prompts": list(run.settings.sample_prompts),
        "samples": samples(run_dir),
        "grid": run_dir.grid.name if run_dir.grid.is_file() else "",
        **curves(run_dir.metrics).shown(),
    }


def facts(run: Run, run_dir: RunDir, result: dict) -> dict:
    settings = run.settings
    when = (run_dir.result_json if result else run_dir.run_json).stat().st_mtime
    return {
        "token": settings.token,
        "class": settings.class_word,
        "trigger": settings.trigger(settings.token),
        "base": run.base_checkpoint,
        "photos": len(run.dataset.photos),
        "finished": bool(result),
        "exported_step": (result.get("exported") or {}).get("step"),
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(when)),
    }
