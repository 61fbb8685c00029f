"""Start the worker on a run, relay what it says, stop it when asked."""

import contextlib
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..trainer.config import Settings
from ..trainer.events import FINISH, read_event
from ..trainer.locks import held
from ..trainer.needs import cache_bytes, duration, in_words, needs, refusal, remedies
from ..trainer.rundir import Run, RunDir, partial_file, read_json, shorter_run, write_json
from . import device, host, live
from .embeddings import Embedding
from .language import in_all

log = logging.getLogger("subject_trainer")

WORKER = Path(__file__).parent.parent / "trainer" / "__main__.py"
POLL_SECONDS = 0.1
STOP_SECONDS = 300
"""How long a worker that was asked to stop may take to save its state."""
LAST_WORDS_SECONDS = 1
"""A process of several devices that outlives the others may hold their pipe open."""
LOG_SECONDS = 10
REACHED = 0.4
"""Share of a bare matrix product's speed that a training step is taken to reach, for the estimate of the time."""


@dataclass(frozen=True)
class Finished:
    exported: host.Exported
    loss: dict
    """LOSS_MAP: {"loss": [one a step]}."""
    ui: dict
    """What the node shows: a text, and the grid of sample pictures where there is one."""


def train(
    run: Run, base: host.Base, place: live.Place, embedding: Embedding | None = None, notes: Sequence[str] = ()
) -> Finished:
    """The run's result: at once when it is finished, else after training from its newest state.

    `embedding` has the vectors that the token starts from; `notes` are shown before, while and after it trains. Raises
    RuntimeError with the worker's sentence when it fails, and ComfyUI's exception on cancel.
    """
    run_dir = RunDir(host.runs_root() / run.id)
    found = host.exported(run_dir)
    if found is None:
        for note in notes:
            log.warning("%s: %s", run.id, note)

        def wait() -> None:
            shown.text("Another ComfyUI trains this run: waiting")

        needed = check_needs(run, run_dir, base)
        with live.begin(run.id, place, notes) as shown:
            with held(run_dir.graph_lock, wait, host.check_interrupted):
                found = host.exported(run_dir) or _train(run, run_dir, base, shown, needed, embedding)
            shown.text("Finished")
    losses = run_dir.losses()
    text = "\n".join((*notes, *summary(losses, run_dir), found.file.name))
    log.info("%s: %s", run.id, text.replace("\n", ", "))
    ui = {"text": (text,), "told": (in_all(text),), "run": (run.id,)}
    if run_dir.grid.is_file():
        ui["grid"] = [host.output_picture(run_dir.grid)]
    return Finished(found, {"loss": losses}, ui)


def _train(
    run: Run, run_dir: RunDir, base: host.Base, shown: live.Live, needed: str, embedding: Embedding | None
) -> host.Exported:
    """Prepare the run directory, let the worker train it to its end; what came of it. `needed`: what it takes, in words."""
    # In this order: a worker that outlived its ComfyUI may be finishing the run right now.
    if run_dir.finished and host.exported(run_dir) is None:
        run_dir.result_json.unlink()  # its file was deleted
    write_json(run_dir.run_json, run.to_json())  # first: a page that hears of the run asks for it
    shown.text(needed)
    if embedding and not run_dir.embedding.is_file():
        embedding.save(run_dir.embedding)
    if not run_dir.checkpoint.is_file():
        shown.text(lengthen(run, run_dir))
    if not run_dir.base.is_file():
        shown.text("Saving the base model")
        base.save(run_dir.base)
    device.free()
    try:
        _run_worker(run_dir, run.settings, shown)
    finally:
        if not run_dir.checkpoint.is_file():  # nothing to go on from: then the base can as well be saved again
            run_dir.base.unlink(missing_ok=True)
    found = host.exported(run_dir)
    if found is None:
        raise RuntimeError(
            f"The exported file of {run.id} is gone again. Queue the graph once more; details are in {run_dir.log}."
        )
    return found


def lengthen(run: Run, run_dir: RunDir) -> str:
    """Begin with the state of the same run with fewer steps, where that equals having asked for all steps at once; in words."""
    shorter = shorter_run(run, run_dir.path.parent)
    if shorter is None:
        return "Beginning"
    if run.settings.lr_scheduler != "constant" or run.settings.early_stopping != "off":
        text = f"Beginning anew: {shorter.path.name} cannot be made longer, its lr_scheduler or early_stopping goes by the steps"
    else:
        # In this order: metrics may be newer than the state, should the shorter run be training now, but not older.
        for there, here in ((shorter.checkpoint, run_dir.checkpoint), (shorter.metrics, run_dir.metrics)):
            with partial_file(here) as partial:
                shutil.copyfile(there, partial)
        text = f"Going on from the state of {shorter.path.name}"
    log.info("%s: %s", run.id, text)
    return text


def check_needs(run: Run, run_dir: RunDir, base: host.Base) -> str:
    """What the run will need, in words. ValueError, with numbers, when the device or the disk cannot give it."""
    for folder in {run_dir.path.parent, *(Path(path).parent for path in (run.export_path, run.embedding_path) if path)}:
        host.check_writable(folder)
    found = needs(
        run.settings,
        run.dataset.resolution,
        base.unet_weights(),
        base.size(),
        trains_word=bool(run.embedding),
        cached_bytes=cache_bytes(run.dataset, run.class_dataset) * run.settings.devices,
    )
    there = sum(path.stat().st_size for path in (run_dir.base, run_dir.checkpoint) if path.is_file())
    reason = refusal(found, run.settings, device.memory(), host.free_disk() + there)
    if reason:
        raise ValueError(reason)
    text = in_words(found, found.flop / run.settings.devices / (device.matmul_speed(run.settings.precision) * REACHED))
    log.info("%s: %s", run.id, text)
    return text


def summary(losses: list[float], run_dir: RunDir) -> list[str]:
    """What came of a finished run, a line a fact."""
    result = read_json(run_dir.result_json)
    last = losses[-100:]
    lines = [f"{len(losses)} steps, mean loss of the last {len(last)}: {sum(last) / max(len(last), 1):.4f}"]
    exported = result["exported"]
    if exported.get("finished_early"):
        lines.append(f"Finished by you after {len(losses)} of {run_dir.load_run().settings.steps} steps")
    if exported["step"] != len(losses) or exported["weights"] == "ema":
        averaged = exported["weights"] == "ema"
        lines.append(f"Exported: the {'averaged weights' if averaged else 'weights'} after step {exported['step']}")
    measured = run_dir.measurements()
    names = {"held_out": "held-out photos", "trained": "trained photos", "class": "class pictures"}
    for name in (n for n in names if measured and n in measured[-1]):
        best = min(measured, key=lambda m: m[name])
        first, now = measured[0][name], measured[-1][name]
        lines.append(
            f"Loss on {names[name]}: {first:.4f} before, {now:.4f} at the end, lowest {best[name]:.4f} at {best['step']}"
        )
    return [*lines, *result["warnings"]]


def _run_worker(run_dir: RunDir, settings: Settings, shown: live.Live) -> None:
    command = worker_command(run_dir, device.name(), settings.devices)
    # Away from ComfyUI's terminal: that it is closed, or gets Ctrl-C, must reach the worker as the end of its stdin,
    # after which it saves its state, and not as a signal.
    group = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {"start_new_session": True}
    pipe = subprocess.PIPE
    with (
        run_dir.log.open("ab") as stderr,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, encoding="utf-8", errors="replace", **group) as worker,
    ):
        events: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(worker.stdout, events), daemon=True).start()
        heard = {"phase": "", "error": ""}

        def finish() -> None:
            with contextlib.suppress(OSError, ValueError):  # it is leaving
                worker.stdin.write(FINISH + "\n")
                worker.stdin.flush()

        try:
            _relay(run_dir, events, shown, heard, finish)
        except BaseException:
            _stop(worker, events, shown, saves=heard["phase"] == "training")
            raise
    if heard["error"] or worker.returncode:
        raise RuntimeError(heard["error"] or _unexpected_end(worker.returncode, settings, run_dir))


def worker_command(run_dir: RunDir, where: str, devices: int) -> list[str]:
    """With several devices under the launcher that accelerate uses too; each process takes the device of its number."""
    launcher = []
    if devices > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(devices)]
        where = where.split(":")[0]
    return [sys.executable, *launcher, str(WORKER), str(run_dir.path), "--device", where, "--attached"]


def _read_lines(stream, events: queue.Queue) -> None:
    for line in stream:
        events.put(line)
    events.put(None)


def _relay(run_dir: RunDir, events: queue.Queue, shown: live.Live, heard: dict[str, str], finish: Callable[[], None]) -> None:
    """Show the worker's events until it ends, and note in `heard` the phase it is in and its error.

    `finish` asks it for the result; the page may call it while it trains.
    """
    logged = 0.0
    while True:
        host.check_interrupted()
        try:
            line = events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return
        event = read_event(line)
        if event is None:
            log.warning("%s: %s", run_dir.path.name, line.rstrip()[:500])
        elif event["event"] == "error":
            heard["error"] = event["text"]
        elif event["event"] == "warning":
            log.warning("%s: %s", run_dir.path.name, event["text"])
        elif event["event"] in ("phase", "step"):
            heard["phase"] = event["phase"]
            shown.finish = finish if event["phase"] == "training" else None
            shown.memory = event.get("memory", shown.memory)
            text = describe(event)
            if event["event"] == "phase" or time.monotonic() - logged > LOG_SECONDS:
                log.info("%s: %s", run_dir.path.name, text)
                logged = time.monotonic()
            shown.text(text)
            shown.bar(event.get("step", 0), event["total"])


def describe(event: dict) -> str:
    """A progress event in words: "Training: step 120 of 800, loss 0.1234 · 3 min left"."""
    text = event["phase"].capitalize()
    if "loss" in event:
        text = f"{text}: step {event['step']} of {event['total']}, loss {event['loss']:.4f}"
    elif "step" in event:
        text = f"{text}: {event['step']} of {event['total']}"
    return f"{text} · {duration(event['seconds_left'])} left" if "seconds_left" in event else text


def _stop(worker: subprocess.Popen, events: queue.Queue, shown: live.Live, saves: bool) -> None:
    """Ask the worker to save its state and leave; end it when it does not, or at once where there is nothing new to save.

    Files are written whole or not at all, so that ending it can cost no more than that. What it exports on the way is named.
    """
    shown.text("Stopping: saving the state" if saves else "Stopping")
    with contextlib.suppress(OSError):  # it is gone already
        worker.stdin.close()
    try:
        worker.wait(STOP_SECONDS if saves else POLL_SECONDS)
    except subprocess.TimeoutExpired:
        if sys.platform == "win32":
            worker.kill()
        else:
            os.killpg(worker.pid, signal.SIGKILL)  # several devices: a process each
    said = []
    with contextlib.suppress(queue.Empty):
        said = [read_event(line) for line in iter(lambda: events.get(timeout=LAST_WORDS_SECONDS), None)]
    exports = [f"Exported: {event['text']}" for event in said if event and event["event"] == "saved"]
    shown.text("\n".join(("Stopped. Queue the graph again to go on.", *exports)))


def _unexpected_end(code: int, settings: Settings, run_dir: RunDir) -> str:
    """Of a process that said nothing: below 0 a signal ended it, from 0xC0000000 on a status of Windows."""
    if 0 <= code < 0xC0000000:
        return (
            f"The training process ended unexpectedly (exit code {code}). Queue the graph again to go on from the last saved "
            f"state; details are in {run_dir.log}."
        )
    reason = "it was killed, most often for want of memory" if code == -9 else f"it crashed with code {code}"
    return (
        f"The training process ended unexpectedly ({reason}). Queue the graph again to go on from the last saved state; if it "
        f"ends so again, make the run need less memory with: {remedies(settings)}. Details are in {run_dir.log}."
    )
