"""How a run is asked to end early: by its stdin, or by a signal. Plain data, no torch."""

import contextlib
import signal
import sys
import threading
import time
from typing import TextIO

from .events import BEGIN, FINISH, GO_ON, SAMPLE


class StoppedError(Exception):
    """The run was asked to stop, or its host died. What was done so far has been saved."""


class StopRequest:
    """True once the run shall stop: by Ctrl-C or SIGTERM, or, with `attached_to`, by a line or the end of that pipe.

    Four lines say something else. BEGIN: the host has written all that the run reads. FINISH: `finishing`, no further step but
    the result of those that are done. GO_ON takes that back. SAMPLE: pictures of the sample prompts now.

    `follows`: this is not the first of the processes that train together. Before training that one alone decides to leave: if
    another did, the first would wait for it. While they train, they agree after each step.
    """

    finishing: bool | None = None
    """Whether the result of the steps so far is wanted; None while nothing was said of it."""
    _wants_samples = False

    def __init__(self, attached_to: TextIO | None = None, follows: bool = False):
        self._event, self._begun, self._follows = threading.Event(), threading.Event(), follows
        if attached_to is not None:
            threading.Thread(target=self._listen, args=(attached_to,), daemon=True, name="stop-request").start()
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self.request())

    def request(self) -> None:
        """Ask the run to stop."""
        self._event.set()

    def _listen(self, stream: TextIO) -> None:
        while True:
            if sys.platform == "win32":
                _wait_for_windows_pipe(stream)
            self.take(stream.readline().strip())
            if self:
                return

    def take(self, line: str) -> None:
        """Do as a line asks."""
        if line == BEGIN:
            self._begun.set()
        elif line in (FINISH, GO_ON):
            self.finishing = line == FINISH
        elif line == SAMPLE:
            self._wants_samples = True
        else:
            self.request()

    def wait_for_begin(self) -> None:
        """Wait for BEGIN. Raises StoppedError when a stop is requested instead."""
        while not self._begun.wait(timeout=0.1):
            self.check()

    def take_sample_wish(self) -> bool:
        """Return whether sample pictures are wanted now: once for each wish."""
        wanted, self._wants_samples = self._wants_samples, False
        return wanted

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise StoppedError when a stop was requested; for the phases that have nothing to save. One that follows goes on."""
        if self and not self._follows:
            raise StoppedError


def _wait_for_windows_pipe(stream: TextIO) -> None:
    """Return when the pipe has something to read or ends.

    It is polled, because a pending read of stdin blocks every DLL that looks at it while it loads: numpy's OpenBLAS does
    (numpy/numpy#24290).
    """
    assert sys.platform == "win32"
    import _winapi
    import msvcrt

    handle = msvcrt.get_osfhandle(stream.fileno())
    with contextlib.suppress(OSError):  # the other end is closed
        while not _winapi.PeekNamedPipe(handle, 0)[0]:
            time.sleep(0.2)
