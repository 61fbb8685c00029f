"""The runs that are training now, and how the page that queued one learns of its progress."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...trainer.run.events import FINISH, GO_ON, SAMPLE
from ...trainer.run.messages import Message, message
from ...trainer.run.run_dir import Run
from ..comfy.progress import NodeProgress, running_client
from .language import joined, language_of_client, text_for_running_page

EVENT = "subject_trainer.live"
SEND_SECONDS = 0.5
"""How often the progress of a run is sent to the page at most."""

_live: dict[str, "LiveRun"] = {}
"""The runs that are training, by their ids."""


@dataclass(frozen=True)
class QueuedNode:
    """A node that ComfyUI runs, of which job of the queue, and who queued that."""

    id: str
    """Its id in the graph, "12:5" for one in a subgraph."""
    prompt: str
    """The job's prompt_id: who names it may see the run's progress and ask something of it."""
    client: str | None
    """The client_id that the job was queued with; None for an API client that gave none."""

    @classmethod
    def running(cls, node_id: str) -> "QueuedNode":
        """Return the node of this id, which is running now."""
        context = get_executing_context()
        return cls(node_id, context.prompt_id if context else "", running_client())


class LiveRun:
    """A run that a node is training. It shows its progress in the node and sends it to the page that queued it."""

    def __init__(self, run: Run, node: QueuedNode, notes: Sequence[Message] = ()):
        self.run_id = run.id
        self.memory = 0
        """Bytes that the worker holds; 0 before it trains."""
        self.ask: Callable[[str], None] | None = None
        """Asks the worker for what one of the lines of its stdin means; None while it does not train."""
        self._finishing = False
        self._has_prompts = bool(run.settings.samples.sample_prompts)
        self._node, self._notes = node, tuple(notes)
        self._lines: tuple[Message, ...] = ()
        self._chosen: tuple[Message, ...] = ()
        self._sent_at = 0.0
        self._progress = NodeProgress(node.id)

    def show(self, *lines: Message) -> None:
        """Show the phase, step and time left, and the notes: on our page at most twice a second, elsewhere at once.

        A page has them in the node's panel, so that ComfyUI's own text below the node is for API clients and others.
        """
        self._lines = lines
        if language_of_client(self._node.client) is None:
            self._progress.text(text_for_running_page(*self._notes, *lines))
        if time.monotonic() - self._sent_at >= SEND_SECONDS:
            self._send()

    def show_choice(self, chosen: Message) -> None:
        """Show what is trained and what it takes: on our page for as long as it trains, elsewhere until the next line comes."""
        self._chosen = (chosen,)
        self.show(*((chosen,) if language_of_client(self._node.client) is None else ()))

    def show_bar(self, done: int, total: int) -> None:
        """Show that `done` of `total` units of the phase are done. Raises ComfyUI's exception on cancel."""
        self._progress.bar(done, total)

    def show_sample(self, path: Path) -> None:
        """Show a sample picture that was drawn just now. Raises ComfyUI's exception on cancel."""
        self._progress.picture(path)
        self._send()

    def belongs_to(self, prompts: Collection[str]) -> bool:
        """Return whether one of these jobs trains the run."""
        return self._node.prompt in prompts

    def request(self, line: str) -> Message | None:
        """Ask the worker for something, by a line of its stdin; return why that cannot be."""
        if self.ask is None:
            if line == GO_ON and self._finishing:
                return message(
                    "The export has begun: the run ends with the steps that are done. Then press Train on in its node."
                )
            return message("This run does not train now.")
        if line == SAMPLE and not self._has_prompts:
            return message(
                "This run has no sample prompts. Cancel it, write some into sample_prompts, and queue the graph again."
            )
        if line != SAMPLE:
            self._finishing = line == FINISH
        self.ask(line)
        self._send()
        return None

    def state(self, language: str) -> dict:
        """Return what the page is sent of the run's progress."""
        return {
            "run": self.run_id,
            "node": self._node.id,
            "prompt": self._node.prompt,
            "text": joined(self._lines, language),
            "notes": joined((*self._chosen, *self._notes), language),
            "memory": self.memory,
            "can_finish": self.ask is not None,
            "finishing": self._finishing,
            "has_prompts": self._has_prompts,
        }

    def end(self) -> None:
        """Let the page know that the run is no longer training."""
        _live.pop(self.run_id, None)
        self._send(ended=True)

    def _send(self, **more) -> None:
        self._sent_at = time.monotonic()
        language = language_of_client(self._node.client)  # None: no page of ours has queued it, or it is closed
        if language:
            PromptServer.instance.send_sync(EVENT, {**self.state(language), **more}, self._node.client)


@contextmanager
def live_run(run: Run, node: QueuedNode, notes: Sequence[Message] = ()) -> Iterator[LiveRun]:
    """List the run among those that are training for as long as the block lasts."""
    live = _live[run.id] = LiveRun(run, node, notes)
    try:
        yield live
    finally:
        live.end()


def is_live(run_id: str) -> bool:
    """Return whether a run is training."""
    return run_id in _live


def states(prompts: Collection[str], language: str) -> list[dict]:
    """Return the progress of the runs that these jobs are training."""
    return [run.state(language) for run in list(_live.values()) if run.belongs_to(prompts)]


def request(run_id: str, prompts: Collection[str], line: str) -> Message | None:
    """Ask the worker of a run that one of these jobs trains for something, by a line of its stdin; return why that cannot be."""
    run = _live.get(run_id)
    if run is None:
        return message("This run does not train now.")
    if not run.belongs_to(prompts):
        return message("Another job trains this run: only who queued it can ask that.")
    return run.request(line)
