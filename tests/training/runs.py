"""How the training tests run the worker: in this process, or as the real one."""

import functools
import io
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import psutil
import torch
from safetensors.torch import save_file

from tools.setup import comfyui_path
from trainer import worker
from trainer.dataset.photos import Dataset
from trainer.run.events import BEGIN, Reporter
from trainer.run.files import write_json
from trainer.run.interpreter import worker_command
from trainer.run.messages import Message
from trainer.run.metrics_file import read_metrics
from trainer.run.ranks import is_alive
from trainer.run.run_dir import EMBEDDING_KEY, Run, RunDir
from trainer.run.settings import Settings
from trainer.run.stop_request import StoppedError, StopRequest

ROOT = Path(__file__).parent.parent.parent
TOKENIZER = comfyui_path() / "comfy" / "sd1_tokenizer"
DREAMBOOTH = Settings.of(
    method="dreambooth",
    token="mysks",
    class_word="plush toy",
    steps=4,
    batch_size=3,
    learning_rate=1e-4,
    lr_scheduler="cosine",
    lr_warmup_steps=2,
    seed=0,
    precision="fp32",
    train="unet",
)
INVERSION = DREAMBOOTH.replace(method="textual_inversion", train="unet_and_token", initializer="toy", learning_rate=5e-3)


def write_run(
    path: Path,
    base: Path,
    settings: Settings,
    dataset: Dataset,
    class_dataset: Dataset | None = None,
    embedding: torch.Tensor | None = None,
    lora: dict[str, torch.Tensor] | None = None,
) -> RunDir:
    """Write a run directory, as the nodes do, for a result beside it of the same name."""
    run_dir = RunDir(path)
    path.mkdir()
    os.link(base, run_dir.base)
    run = Run(
        name=path.name,
        settings=settings,
        dataset=dataset,
        class_dataset=class_dataset,
        base_fingerprint="standin",
        embedding="" if embedding is None else "given",
        lora="" if lora is None else "given",
        embedding_path=str(path.parent / f"{path.name}-word.safetensors"),
        export_path=str(path.parent / f"{path.name}.safetensors"),
        tokenizer_path=str(TOKENIZER),
    )
    write_json(run_dir.run_json, run.to_json())
    if embedding is not None:
        save_file({EMBEDDING_KEY: embedding}, run_dir.embedding)
    if lora is not None:
        save_file(lora, run_dir.lora)
    return run_dir


@functools.cache
def open_pipe() -> TextIO:
    """A stdin that never says anything; its other end stays open."""
    return os.fdopen(os.pipe()[0])


class StopAfter:
    """A stop request that comes after so many training steps, or one for the result."""

    def __init__(self, steps: int, finish: bool = False):
        self.left, self.finish = steps, finish

    @property
    def finishing(self) -> bool:
        return self.finish and self.left <= 0

    def take_sample_wish(self) -> bool:
        return False

    def __bool__(self) -> bool:  # the loop asks once a step
        self.left -= 1
        return self.left <= 0 and not self.finish

    def check(self) -> None:
        pass


class Asked(StopRequest):
    """What the user asks for when an event comes: {(kind, step): line}; each once."""

    def __init__(self, lines: dict[tuple[str, int], str]):
        super().__init__(open_pipe())
        self.lines = dict(lines)

    def hear(self, event: dict) -> None:
        line = self.lines.pop((event["event"], event.get("step", event.get("done"))), "")
        if line:
            self.take(line)


class Told(io.StringIO):
    """The worker's stdout, whose reader answers each event at once."""

    def __init__(self, answer: Callable[[dict], None]):
        super().__init__()
        self.answer = answer

    def write(self, text: str) -> int:
        self.answer(json.loads(text))
        return super().write(text)


def work_here(run_dir: RunDir, stop_after: int = 0, finish_after: int = 0, asked: dict | None = None) -> list[dict]:
    """Train in this process, which has the libraries loaded already; its events. Errors are raised."""
    after = stop_after or finish_after
    stop = StopAfter(after, finish=bool(finish_after)) if after else Asked(asked or {})
    events = Told(stop.hear) if asked else io.StringIO()
    try:
        worker.work(run_dir.path, "cpu", Reporter(events), stop)
    except StoppedError:
        assert stop_after
    return [json.loads(line) for line in events.getvalue().splitlines()]


def losses_of(run_dir: RunDir) -> list[float]:
    """Return what each step so far was trained on: the loss of the photos, and of the class where there is one."""
    return [entry["loss"] for entry in read_metrics(run_dir.metrics) if "loss" in entry]


def sentence(event: dict) -> str:
    """Return what an event tells the user."""
    return str(Message.from_json(event["message"]))


def start_worker(run_dir: RunDir, devices: int = 1) -> subprocess.Popen:
    """Start the worker as the host does: with torch's launcher for several devices, in a session of its own."""
    command = worker_command(run_dir.path, "cpu", devices)
    pipe = subprocess.PIPE
    with run_dir.log.open("ab") as log:
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, encoding="utf-8", cwd="/", start_new_session=True)
    worker.stdin.write(f"{BEGIN}\n")
    worker.stdin.flush()
    return worker


def processes(run_dir: RunDir) -> list[psutil.Process]:
    """The processes that train the run, with their launcher."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if str(run_dir.path) in (process.info["cmdline"] or ()) and is_alive(process)]


def wait_until(holds: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def work(run_dir: RunDir, stop_at: int | None = None, devices: int = 1) -> list[dict]:
    """The worker's events until it ends; it is asked to stop when it reports `stop_at` steps."""
    events = []
    with start_worker(run_dir, devices) as worker:
        for line in worker.stdout:
            events.append(json.loads(line))
            if stop_at is not None and events[-1].get("loss") and events[-1]["done"] >= stop_at and not worker.stdin.closed:
                worker.stdin.close()
    return events
