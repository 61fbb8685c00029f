"""What the page shows of a run: what is going on in it now, its curves, its sample pictures. Always of bounded size."""

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server import PromptServer

from ..trainer.rundir import Run, RunDir, metrics_entry, read_json
from . import host

EVENT = "subject_trainer.live"
TELL_SECONDS = 0.5

POINTS = 400
"""So many points of a curve at most: more than a node is wide."""
SAMPLES = 48
"""So many of the newest sample pictures."""
KEPT = 16
"""So many runs whose curves are kept in memory."""
SMOOTHING = 0.1
"""Weight of a new point in the smoothed curve."""


# --- runs that train now ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a node is."""

    node: str
    """Its id in the graph, "12:5" for one in a subgraph."""
    workflow: str
    """Id of the page's workflow; "" when the graph did not come from a page."""

    @classmethod
    def of(cls, hidden) -> "Place":
        """Of the node that has these hidden inputs."""
        workflow = (hidden.extra_pnginfo or {}).get("workflow") or {}
        return cls(hidden.unique_id, str(workflow.get("id") or ""))


class Live:
    """A run that a node of a graph has in hand: tells every open page how it goes."""

    def __init__(self, run_id: str, place: Place, notes: Sequence[str] = ()):
        self.run, self._place, self._text, self._told = run_id, place, "", 0.0
        self._progress = host.NodeProgress(place.node, notes)
        self.memory = 0
        """Bytes that the worker holds; 0 before it trains."""
        self.finish: Callable[[], None] | None = None
        """Asks for the result now; None while there is nothing to ask."""

    def text(self, text: str) -> None:
        """Phase, step, time left: below the node at once, on the pages at most twice a second."""
        self._text = text
        self._progress.text(text)
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._tell()

    def bar(self, value: int, total: int) -> None:
        """Raises ComfyUI's exception on cancel."""
        self._progress.bar(value, total)

    def shown(self) -> dict:
        can_finish = self.finish is not None
        state = {"text": self._text, "memory": self.memory, "can_finish": can_finish}
        return {"run": self.run, "node": self._place.node, "workflow": self._place.workflow, **state}

    def end(self) -> None:
        _live.pop(self.run, None)
        self._tell(ended=True)

    def _tell(self, **more) -> None:
        self._told = time.monotonic()
        PromptServer.instance.send_sync(EVENT, {**self.shown(), **more})


_live: dict[str, Live] = {}


@contextmanager
def begin(run_id: str, place: Place, notes: Sequence[str] = ()) -> Iterator[Live]:
    """The run is in hand for as long as the block lasts."""
    live = _live[run_id] = Live(run_id, place, notes)
    try:
        yield live
    finally:
        live.end()


def all_live() -> list[dict]:
    return [live.shown() for live in list(_live.values())]


def finish(run_id: str) -> bool:
    """Ask for the run's result now; False where it does not train."""
    live = _live.get(run_id)
    if live is None or live.finish is None:
        return False
    live.finish()
    return True


# --- curves ----------------------------------------------------------------------------------------------------------


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


_curves: OrderedDict[Path, Curves] = OrderedDict()
_curves_lock = threading.Lock()


def curves(path: Path) -> Curves:
    with _curves_lock:
        found = _curves.pop(path, None) or Curves(path)
        _curves[path] = found
        while len(_curves) > KEPT:
            _curves.popitem(last=False)
        return found


# --- a run's card ----------------------------------------------------------------------------------------------------


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
    live = _live.get(run_dir.path.name)
    result = read_json(run_dir.result_json) if run_dir.finished else {}
    return {
        "run": run_dir.path.name,
        "live": live.shown() if live else None,
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
        "method": settings.method,
        "trained": settings.train if settings.method == "dreambooth" else "embedding",
        "token": settings.token,
        "class": settings.class_word,
        "trigger": settings.trigger(settings.token),
        "base": run.base_checkpoint,
        "photos": len(run.dataset.photos),
        "resolution": run.dataset.resolution,
        "finished": bool(result),
        "exported_step": (result.get("exported") or {}).get("step"),
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(when)),
        "file": result.get("file", ""),
    }
