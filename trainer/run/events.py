"""What worker and host say to each other: events on the worker's stdout, requests on its stdin. Plain data, no torch.

An event is one JSON object a line, {"event": its kind, ...the fields of its class}:

    phase     a phase of the run begins
    progress  part of the phase is done; while it trains with loss, time left and memory
    sample    a sample picture was drawn
    saved     a file beside the result was exported
    warning   the user should know something that does not end the run
    error     the run failed
    stopped   the run was stopped on request; its state is saved
    done      the result is written

The host passes over stopped and done, because it takes the end of the process for the end of the run, and looks at saved only
after a cancel. All of them are also for whoever reads the events of a worker that was started by hand or by another program.

The host asks with a line: BEGIN once all files of the run are there, FINISH for the result of the steps done so far, GO_ON to
take that back, SAMPLE for sample pictures now; any other line, or the end of the pipe, to stop.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TextIO, get_args

from .messages import Message, message

BEGIN = "begin"
"""The line on stdin that says that all of the run's files are there."""
FINISH = "finish"
"""The line that asks for the result now."""
GO_ON = "go on"
"""The line that takes this back, while the export has not begun."""
SAMPLE = "sample"
"""The line that asks for the sample pictures of the weights as they are now."""

STARTING, WAITING, WAITING_FOR_CLASS_IMAGES, LOADING = "starting", "waiting", "waiting_for_class_images", "loading"
CLASS_IMAGES, TRAINING, EXPORTING, DRAWING = "class_images", "training", "exporting", "drawing"
ENCODING_INSTANCE, ENCODING_CLASS, ENCODING_HELD_OUT = "encoding_instance", "encoding_class", "encoding_held_out"
PHASES = {
    STARTING: message("Starting"),
    WAITING: message("Waiting for another process that trains this run"),
    LOADING: message("Loading"),
    WAITING_FOR_CLASS_IMAGES: message("Waiting for another run that makes the same class images"),
    CLASS_IMAGES: message("Making class images"),
    ENCODING_INSTANCE: message("Encoding instance photos"),
    ENCODING_CLASS: message("Encoding class images"),
    ENCODING_HELD_OUT: message("Encoding held-out photos"),
    TRAINING: message("Training"),
    EXPORTING: message("Exporting"),
    DRAWING: message("Drawing sample pictures"),
}
"""The phases of a run, in their order, as the user reads them."""


@dataclass(frozen=True)
class Phase:
    kind: ClassVar[str] = "phase"
    phase: str
    """One of PHASES."""
    total: int = 0
    """Units of work; 0: unknown."""


@dataclass(frozen=True)
class Progress:
    kind: ClassVar[str] = "progress"
    phase: str
    done: int
    total: int
    loss: float | None = None
    seconds_left: float | None = None
    memory: int | None = None
    """Bytes that the worker holds."""


@dataclass(frozen=True)
class Sample:
    kind: ClassVar[str] = "sample"
    step: int
    prompt: int
    """Which of the sample prompts, from 0."""
    file: str


@dataclass(frozen=True)
class Saved:
    kind: ClassVar[str] = "saved"
    file: str
    """Its name."""


@dataclass(frozen=True)
class Warned:
    kind: ClassVar[str] = "warning"
    message: Message


@dataclass(frozen=True)
class Failed:
    kind: ClassVar[str] = "error"
    message: Message


@dataclass(frozen=True)
class Stopped:
    kind: ClassVar[str] = "stopped"


@dataclass(frozen=True)
class Done:
    kind: ClassVar[str] = "done"


Event = Phase | Progress | Sample | Saved | Warned | Failed | Stopped | Done
KINDS: dict[str, Any] = {event.kind: event for event in get_args(Event)}


def encode(event: Event) -> str:
    """Return the event as a line of JSON, without its end; fields that are None are left out."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    given = {name: v.to_json() if isinstance(v, Message) else v for name, v in values.items() if v is not None}
    return json.dumps({"event": event.kind, **given})


def decode(line: str) -> Event | None:
    """Return the event of a line; None when it is no event: libraries print, too. Fields that are not known are left out."""
    with suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError, OverflowError):
        given = json.loads(line)
        kind = KINDS[given["event"]]
        values = {f.name: given[f.name] for f in fields(kind) if f.name in given}
        if "message" in values:
            values["message"] = Message.from_json(values["message"])
        event = kind(**values)
        if all(_fits(getattr(event, f.name), f.type) for f in fields(kind)):
            return event
    return None


def _fits(value: object, kind: Any) -> bool:
    """Return whether a value has the type of its field; an int will do for a float, a bool for neither."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, int) and float in kinds:
        value = float(value)  # OverflowError for a number that cannot be shown
    return isinstance(value, kinds) and not isinstance(value, bool)


@dataclass
class Reporter:
    """Writes events, and keeps the warnings and the time spent in each phase for result.json.

    Libraries that print must not disturb it: give it the real stdout and redirect `sys.stdout`.
    """

    stream: TextIO
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each finished phase."""
    warnings: list[Message] = field(default_factory=list)
    _phase: str = ""
    _since: float = field(default_factory=time.monotonic)

    def emit(self, event: Event) -> None:
        """Write the event; nothing happens when the host is gone: stdin says so too, and the stop request follows."""
        with suppress(OSError, ValueError):  # Windows has other errors than BrokenPipeError for it
            self.stream.write(encode(event) + "\n")
            self.stream.flush()

    def phase(self, phase: str, total: int = 0) -> None:
        """Begin a phase (one of PHASES) of `total` units of work (0: unknown)."""
        self.end_phase()
        self._phase = phase
        self.emit(Phase(phase, total))

    def end_phase(self) -> None:
        """Note the time that the phase has taken."""
        now = time.monotonic()
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = "", now

    def warning(self, template: str, /, **values: Any) -> None:
        """Report a message that the user should read and that does not end the run."""
        self.warnings.append(Message(template, values))
        self.emit(Warned(self.warnings[-1]))

    def progress(self, done: int, total: int, **more: Any) -> None:
        """Report that `done` of `total` units of the phase are done; `more` are further fields of `Progress`."""
        self.emit(Progress(self._phase, done, total, **more))
