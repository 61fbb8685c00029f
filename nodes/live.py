"""The runs that train now, told to every open page."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from server import PromptServer

from ..trainer.messages import translated
from . import host
from .language import pages

EVENT = "subject_trainer.live"
TELL_SECONDS = 0.5


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

    def shown(self, language: str) -> dict:
        can_finish = self.finish is not None
        state = {"text": translated(self._text, language), "memory": self.memory, "can_finish": can_finish}
        return {"run": self.run, "node": self._place.node, "workflow": self._place.workflow, **state}

    def end(self) -> None:
        _live.pop(self.run, None)
        self._tell(ended=True)

    def _tell(self, **more) -> None:
        self._told = time.monotonic()
        for client, language in pages().items():
            PromptServer.instance.send_sync(EVENT, {**self.shown(language), **more}, client)


_live: dict[str, Live] = {}


@contextmanager
def begin(run_id: str, place: Place, notes: Sequence[str] = ()) -> Iterator[Live]:
    """The run is in hand for as long as the block lasts."""
    live = _live[run_id] = Live(run_id, place, notes)
    try:
        yield live
    finally:
        live.end()


def all_live(language: str) -> list[dict]:
    return [live.shown(language) for live in list(_live.values())]


def of_run(run_id: str, language: str) -> dict | None:
    """How the run goes; None while it does not train."""
    live = _live.get(run_id)
    return live.shown(language) if live else None


def finish(run_id: str) -> bool:
    """Ask for the run's result now; False where it does not train."""
    live = _live.get(run_id)
    if live is None or live.finish is None:
        return False
    live.finish()
    return True
