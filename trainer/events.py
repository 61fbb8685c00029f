"""The worker's two pipes: events out (one JSON object a line on stdout), requests in (stdin)."""

import contextlib
import json
import signal
import sys
import threading
import time
from typing import TextIO


class Stopped(Exception):
    """The host asked the worker to stop, or died. What was done so far has been saved."""


def read_event(line: str) -> dict | None:
    """The event of a line of the worker's; None when the line is something else. Unknown fields are left out."""
    number = float | int
    kinds = {"event": str, "text": str, "phase": str, "step": int, "total": int}
    kinds |= {"loss": number, "seconds_left": number, "memory": int}
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    event = {name: value for name, value in given.items() if name in kinds and isinstance(value, kinds[name])}
    needed = {"phase": {"phase", "total"}, "step": {"phase", "step", "total"}}
    needed |= {kind: {"text"} for kind in ("error", "warning", "saved")}
    return event if "event" in event and needed.get(event["event"], set()) <= event.keys() else None


class Reporter:
    """Writes events. Libraries that print must not disturb them: give it the real stdout and redirect `sys.stdout`."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.seconds: dict[str, float] = {}
        """Seconds spent in each finished phase."""
        self.warnings: list[str] = []
        self._phase, self._since = "", time.monotonic()

    def emit(self, event: str, **fields) -> None:
        try:
            self._stream.write(json.dumps({"event": event, **fields}) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # Windows has other errors than BrokenPipeError for it
            pass  # the host is gone; stdin says so too and the stop request follows

    def phase(self, name: str, total: int = 0) -> None:
        """Begin a phase of `total` units of work (0: unknown); "" ends the last one."""
        now = time.monotonic()
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = name, now
        if name:
            self.emit("phase", phase=name, total=total)

    def warning(self, text: str) -> None:
        """Something that the artist should know and that does not end the run."""
        self.warnings.append(text)
        self.emit("warning", text=text)

    def step(self, step: int, total: int, **fields) -> None:
        """`step` of `total` units of the phase are done."""
        self.emit("step", phase=self._phase, step=step, total=total, **fields)


FINISH = "finish"
"""The line on stdin that asks for the result now."""


class StopRequest:
    """True once the run shall stop: by Ctrl-C or SIGTERM, or, with `attached_to`, by a line or the end of that pipe.

    The line FINISH asks for something else: `finishing`, no further step but the result of those that are done.
    """

    finishing = False

    def __init__(self, attached_to: TextIO | None = None):
        self._event = threading.Event()
        if attached_to is not None:
            threading.Thread(target=self._listen, args=(attached_to,), daemon=True, name="stop-request").start()
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self._event.set())

    def _listen(self, stream: TextIO) -> None:
        while True:
            if sys.platform == "win32":
                _wait_for_windows_pipe(stream)
            if stream.readline().strip() != FINISH:
                break
            self.finishing = True
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Stopped when a stop was requested; for the phases that have nothing to save."""
        if self:
            raise Stopped


def _wait_for_windows_pipe(stream: TextIO) -> None:
    """Return when the pipe has something to read or ends.

    Polled, because a pending read of stdin blocks every DLL that looks at it while it loads: numpy's OpenBLAS does
    (numpy/numpy#24290).
    """
    import _winapi
    import msvcrt

    handle = msvcrt.get_osfhandle(stream.fileno())
    with contextlib.suppress(OSError):  # the other end is closed
        while not _winapi.PeekNamedPipe(handle, 0)[0]:
            time.sleep(0.2)
