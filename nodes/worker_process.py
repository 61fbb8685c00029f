"""Start the worker process of a run, show its progress, and stop it."""

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ..trainer.run.events import BEGIN, EXPORTING, PHASES, TRAINING, Failed, Phase, Progress, Sample, Saved, Warned, decode
from ..trainer.run.interpreter import worker_command
from ..trainer.run.messages import Message, MessageError, message
from ..trainer.run.ranks import end_tree
from ..trainer.run.resources import duration
from ..trainer.run.run_dir import Run, RunDir
from ..trainer.run.summary import stopped
from ..trainer.run.unexpected_end import unexpected_end
from .comfy import device
from .comfy.progress import check_interrupted
from .page.live_runs import LiveRun

log = logging.getLogger("subject_trainer")

POLL_SECONDS = 0.1
STOP_SECONDS = 300
"""How long a worker that was asked to stop may take to save its state."""
LEAVING_SECONDS = 60
"""How long a worker may take to end after its last word."""
DRAIN_SECONDS = 1
"""How long to wait for a worker's last events: a process that cannot be killed would hold the pipe open."""
LOG_SECONDS = 10
"""How often progress is logged at most."""


class WorkerError(MessageError, RuntimeError):
    """The worker failed; the message says why."""


def run_worker(run: Run, run_dir: RunDir, live_run: LiveRun, save_base: Callable[[], None]) -> None:
    """Let a worker train the run to its end, and show its progress. It loads its libraries while the base is being saved.

    Raises WorkerError when it fails, and ComfyUI's exception on cancel, once the worker has saved its state and ended.
    """
    command = worker_command(run_dir.path, device.name(), run.settings.training.devices)
    with run_dir.log.open("ab") as log_file, _start(command, log_file) as process:
        worker = Worker(process, run_dir, run.settings.training.steps, live_run)
        try:
            save_base()
            worker.ask(BEGIN)
            worker.relay()
            worker.wait()
        except BaseException:
            worker.stop()
            raise
    failure = worker.failure
    if not failure and process.returncode and not run_dir.finished:  # what crashes after the result costs nothing
        failure = unexpected_end(process.returncode, run, run_dir)
    if failure:
        raise WorkerError(failure.template, **failure.values)


def _start(command: list[str], log_file: BinaryIO) -> subprocess.Popen[str]:
    # Away from ComfyUI's terminal: that it is closed, or gets Ctrl-C, must reach the worker as the end of its stdin,
    # after which it saves its state, and not as a signal.
    group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NO_WINDOW}
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTORCH_CUDA_ALLOC_CONF": device.allocator_of_worker()}
    texts = {"encoding": "utf-8", "errors": "replace"}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log_file, env=environment, **texts, **group)


class Worker:
    """A worker process that is running, and what it has reported."""

    def __init__(self, process: subprocess.Popen[str], run_dir: RunDir, steps: int, live_run: LiveRun):
        self.failure: Message | None = None
        """Why it failed, once it has said so."""
        self._process, self._run_dir, self._live_run = process, run_dir, live_run
        self._run_id, self._steps, self._samples = run_dir.path.name, steps, run_dir.samples
        assert process.stdin is not None  # it and stdout are pipes
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._phase = ""
        self._logged_at = 0.0
        self._lines: queue.Queue[str | None] = queue.Queue()  # of its stdout; None is the end
        threading.Thread(target=self._read_lines, daemon=True).start()

    def relay(self) -> None:
        """Show the worker's progress until its output ends. Raises ComfyUI's exception on cancel."""
        while True:
            check_interrupted()
            try:
                line = self._lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                return
            event = decode(line)
            if event is None:
                log.warning("%s: %s", self._run_id, line.rstrip()[:500])
            elif isinstance(event, Failed):
                self.failure = self.failure or event.message  # those after it follow from the first
            elif isinstance(event, Warned):
                log.warning("%s: %s", self._run_id, event.message)
            elif isinstance(event, Sample):
                self._live_run.show_sample(self._samples / Path(event.file).name)
            elif isinstance(event, Phase | Progress) and event.phase in PHASES:
                self._show(event)

    def wait(self) -> None:
        """Wait for the end of a worker that has said all; kill it when it does not come. Raises ComfyUI's exception on cancel."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while self._process.poll() is None:
            check_interrupted()
            if time.monotonic() > deadline:
                end_tree(self._process.pid)
                return
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask the worker to save its state and end; kill it when it does not, or at once while there is no new state to save.

        Files are written whole or not at all, so that killing it can cost no more than that. What it exports on the way is named.
        """
        saves = self._phase == TRAINING
        waits = saves or self._phase == EXPORTING  # which ends as soon as a state would be saved
        self._live_run.show(message("Stopping: saving the state") if saves else message("Stopping"))
        with contextlib.suppress(OSError):  # it has ended already
            self._stdin.close()
        try:
            self._process.wait(STOP_SECONDS if waits else POLL_SECONDS)
        except subprocess.TimeoutExpired:
            end_tree(self._process.pid)  # the processes of several devices have sessions of their own
        told = stopped(self._run_dir, self._steps) or message("Stopped. Queue the graph again to go on.")
        self._live_run.show(told, *self._last_exports())

    def ask(self, line: str) -> None:
        """Send the worker a line that asks for something. The page may call this while it trains."""
        with contextlib.suppress(OSError, ValueError):  # it has ended already
            self._stdin.write(line + "\n")
            self._stdin.flush()

    def _read_lines(self) -> None:
        for line in self._stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _show(self, event: Phase | Progress) -> None:
        self._phase = event.phase
        self._live_run.ask = self.ask if event.phase == TRAINING else None
        if isinstance(event, Progress) and event.memory is not None:
            self._live_run.memory = event.memory
        text = progress_message(event)
        if isinstance(event, Phase) or time.monotonic() - self._logged_at > LOG_SECONDS:
            log.info("%s: %s", self._run_id, text)
            self._logged_at = time.monotonic()
        self._live_run.show(text)
        self._live_run.show_bar(event.done if isinstance(event, Progress) else 0, event.total)

    def _last_exports(self) -> list[Message]:
        """Return which files a worker that was stopped has exported, by the events that are left."""
        events = []
        with contextlib.suppress(queue.Empty):
            events = [decode(line) for line in iter(lambda: self._lines.get(timeout=DRAIN_SECONDS), None)]
        return [message("Exported: {file}", file=event.file) for event in events if isinstance(event, Saved)]


def progress_message(event: Phase | Progress) -> Message:
    """Return an event as the user reads it: "Training: step 120 of 800, loss 0.1234 · 3 min left"."""
    phase = PHASES[event.phase]
    if isinstance(event, Phase):
        return phase
    counts = {"phase": phase, "done": event.done, "total": event.total}
    if event.loss is None:
        text = message("{phase}: {done} of {total}", **counts)
    else:
        text = message("{phase}: step {done} of {total}, loss {loss:.4f}", loss=event.loss, **counts)
    if event.seconds_left is None:
        return text
    return message("{progress} · {duration} left", progress=text, duration=duration(event.seconds_left))
