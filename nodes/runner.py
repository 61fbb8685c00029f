"""Start the worker on a run, relay what it says, stop it when asked."""

import contextlib
import json
import logging
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from comfy_api.latest import ui

from ..trainer.rundir import Run, RunDir, write_json
from . import host

log = logging.getLogger("subject_trainer")

WORKER = Path(__file__).parent.parent / "trainer" / "__main__.py"
POLL_SECONDS = 0.1
STOP_SECONDS = 300
"""How long a worker that was asked to stop may take to save its state."""
LOG_SECONDS = 10


@dataclass(frozen=True)
class Finished:
    file: Path
    loss: dict
    """LOSS_MAP: {"loss": [one a step]}."""
    summary: ui.PreviewText


def train(run: Run, base: host.Base, node_id: str) -> Finished:
    """The run's result: at once when it is finished, else after training from its newest state.

    Raises RuntimeError with the worker's sentence when it fails, and ComfyUI's exception on cancel.
    """
    run_dir = RunDir(host.runs_root() / run.id)
    file = host.exported_file(run_dir)
    if file is None:
        run_dir.path.mkdir(parents=True, exist_ok=True)
        run_dir.result_json.unlink(missing_ok=True)  # finished once, but its file was deleted
        write_json(run_dir.run_json, run.to_json())
        progress = host.NodeProgress(node_id)
        if not run_dir.base.is_file():
            progress.text("Saving the base model")
            base.save(run_dir.base)
        host.free_device()
        try:
            _run_worker(run_dir, progress)
        finally:
            if not run_dir.checkpoint.is_file():  # nothing to go on from: then the base can as well be saved again
                run_dir.base.unlink(missing_ok=True)
        file = host.exported_file(run_dir)
        assert file is not None
    losses = run_dir.losses()
    last = losses[-100:]
    mean = sum(last) / max(len(last), 1)
    summary = f"{len(losses)} steps, mean loss of the last {len(last)}: {mean:.4f}\n{file.name}"
    log.info("%s: %s", run.id, summary.replace("\n", ", "))
    return Finished(file, {"loss": losses}, ui.PreviewText(summary))


def _run_worker(run_dir: RunDir, progress: host.NodeProgress) -> None:
    command = [sys.executable, str(WORKER), str(run_dir.path), "--device", host.device(), "--attached"]
    # Away from ComfyUI's terminal: that it is closed, or gets Ctrl-C, must reach the worker as the end of its stdin,
    # after which it saves its state, and not as a signal.
    group = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {"start_new_session": True}
    pipe = subprocess.PIPE
    with (
        run_dir.log.open("ab") as stderr,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, encoding="utf-8", **group) as worker,
    ):
        events: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(worker.stdout, events), daemon=True).start()
        try:
            error = _relay(run_dir, events, progress)
        except BaseException:
            _stop(worker, progress)
            raise
    if error or worker.returncode:
        raise RuntimeError(error or _unexpected_end(worker.returncode, run_dir))


def _read_lines(stream, events: queue.Queue) -> None:
    for line in stream:
        events.put(line)
    events.put(None)


def _relay(run_dir: RunDir, events: queue.Queue, progress: host.NodeProgress) -> str:
    """Show the worker's events until it ends; its error, "" when it had none."""
    error, logged = "", 0.0
    while True:
        host.check_interrupted()
        try:
            line = events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return error
        event = json.loads(line)
        if event["event"] == "error":
            error = event["text"]
        elif event["event"] in ("phase", "step"):
            text = describe(event)
            if event["event"] == "phase" or time.monotonic() - logged > LOG_SECONDS:
                log.info("%s: %s", run_dir.path.name, text)
                logged = time.monotonic()
            progress.text(text)
            progress.bar(event.get("step", 0), event["total"])


def describe(event: dict) -> str:
    """A progress event in words: "Training: step 120 of 800, loss 0.1234, 3 min left"."""
    text = event["phase"].capitalize()
    if "step" in event:
        text += f": {'step ' if 'loss' in event else ''}{event['step']} of {event['total']}"
    if "loss" in event:
        text += f", loss {event['loss']:.4f}"
    if "seconds_left" in event:
        seconds = round(event["seconds_left"])
        left = f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"
        text += f", {left} left" if seconds < 5400 else f", {seconds / 3600:.1f} h left"
    return text


def _stop(worker: subprocess.Popen, progress: host.NodeProgress) -> None:
    """Ask the worker to save its state and leave; end it when it does not."""
    progress.text("Stopping: saving the state")
    with contextlib.suppress(OSError):  # it is gone already
        worker.stdin.close()
    try:
        worker.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
    progress.text("Stopped. Queue the graph again to go on.")


def _unexpected_end(code: int, run_dir: RunDir) -> str:
    reason = "it was killed, most often for want of memory" if code in (-9, 137) else f"exit code {code}"
    return (
        f"The training process ended unexpectedly ({reason}). Queue the graph again to go on from the last saved state; "
        f"details are in {run_dir.log}."
    )
