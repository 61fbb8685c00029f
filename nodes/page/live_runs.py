"""The runs that are training now, and how every open page learns of their progress."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from server import PromptServer

from ...trainer.run.messages import Message
from ..comfy.progress import NodeProgress
from .language import joined, page_languages, text_for_running_page

EVENT = "subject_trainer.live"
SEND_SECONDS = 0.5
"""How often the progress of a run is sent to the pages at most."""

_live: dict[str, "LiveRun"] = {}
"""The runs that are training, by their ids."""


@dataclass(frozen=True)
class GraphNode:
    """Which node of which workflow runs."""

    id: str
    """Its id in the graph, "12:5" for one in a subgraph."""
    workflow: str
    """Id of the page's workflow; "" when the graph did not come from a page."""

    @classmethod
    def of(cls, hidden) -> "GraphNode":
        """Return the node that has these hidden inputs."""
        info = hidden.extra_pnginfo if isinstance(hidden.extra_pnginfo, dict) else {}  # whatever a client has sent
        workflow = info["workflow"] if isinstance(info.get("workflow"), dict) else {}
        return cls(hidden.unique_id, str(workflow.get("id") or ""))


class LiveRun:
    """A run that a node is training. It shows its progress below the node and sends it to every open page."""

    def __init__(self, run_id: str, node: GraphNode, notes: Sequence[Message] = ()):
        self.run_id = run_id
        self.memory = 0
        """Bytes that the worker holds; 0 before it trains."""
        self.finish: Callable[[], None] | None = None
        """Asks the worker for the result of the steps done so far; None while there is none to ask for."""
        self._node, self._notes = node, tuple(notes)
        self._lines: tuple[Message, ...] = ()
        self._sent_at = 0.0
        self._progress = NodeProgress(node.id)

    def show(self, *lines: Message) -> None:
        """Show the phase, step and time left: below the node, after the notes, at once; on the pages at most twice a second."""
        self._lines = lines
        self._progress.text(text_for_running_page(*self._notes, *lines))
        if time.monotonic() - self._sent_at >= SEND_SECONDS:
            self._send()

    def show_bar(self, done: int, total: int) -> None:
        """Show that `done` of `total` units of the phase are done. Raises ComfyUI's exception on cancel."""
        self._progress.bar(done, total)

    def state(self, language: str) -> dict:
        """Return what the page is sent of the run's progress."""
        return {
            "run": self.run_id,
            "node": self._node.id,
            "workflow": self._node.workflow,
            "text": joined(self._lines, language),
            "memory": self.memory,
            "can_finish": self.finish is not None,
        }

    def end(self) -> None:
        """Let the pages know that the run is no longer training."""
        _live.pop(self.run_id, None)
        self._send(ended=True)

    def _send(self, **more) -> None:
        self._sent_at = time.monotonic()
        for client, language in page_languages().items():
            PromptServer.instance.send_sync(EVENT, {**self.state(language), **more}, client)


@contextmanager
def live_run(run_id: str, node: GraphNode, notes: Sequence[Message] = ()) -> Iterator[LiveRun]:
    """List the run among those that are training for as long as the block lasts."""
    run = _live[run_id] = LiveRun(run_id, node, notes)
    try:
        yield run
    finally:
        run.end()


def all_states(language: str) -> list[dict]:
    """Return the progress of all runs that are training."""
    return [run.state(language) for run in list(_live.values())]


def state_of(run_id: str, language: str) -> dict | None:
    """Return the progress of a run; None while it is not training."""
    run = _live.get(run_id)
    return run.state(language) if run else None


def finish(run_id: str) -> bool:
    """Ask the worker of a run for the result of the steps done so far; False when it is not training."""
    run = _live.get(run_id)
    if run is None or run.finish is None:
        return False
    run.finish()
    return True
