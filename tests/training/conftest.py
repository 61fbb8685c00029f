"""Runs of the worker on the stand-in base: its real process, its real files."""

import functools
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest
import torch
from safetensors.torch import save_file

from demo import photos
from trainer import worker
from trainer.captions import caption_with_token
from trainer.config import Settings
from trainer.events import Reporter, Stopped, StopRequest
from trainer.photos import Dataset, read_folder
from trainer.rundir import EMBEDDING_KEY, Run, RunDir, write_json

ROOT = Path(__file__).parent.parent.parent
TOKENIZER = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI") / "comfy" / "sd1_tokenizer"
DREAMBOOTH = Settings(
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
)
INVERSION = replace(DREAMBOOTH, method="textual_inversion", initializer="toy", learning_rate=5e-3, weight_decay=0.0)


@pytest.fixture(scope="session")
def dataset(photo_folder) -> Dataset:
    loaded, _ = read_folder(photo_folder, 64)
    captions = [caption_with_token(photo.caption, "mysks", "plush toy") for photo in loaded.photos]
    return loaded.with_captions(captions, token="mysks", class_word="plush toy")


@pytest.fixture(scope="session")
def class_dataset(tmp_path_factory) -> Dataset:
    """Two class images under the class prompt."""
    folder = tmp_path_factory.mktemp("class")
    for number, colour in enumerate(((90, 20, 120), (20, 120, 90))):
        photos.draw_photo(colour, colour[::-1], shift=60).save(folder / f"{number}.png")
    loaded, _ = read_folder(folder, 64)
    return loaded.with_captions(["a photo of a plush toy"] * 2)


@pytest.fixture
def make_run(dataset, standin_base, tmp_path):
    """Write a run directory, as the nodes do, and give it."""

    def make(
        settings: Settings,
        name="toy",
        class_dataset: Dataset | None = None,
        *,
        dataset=dataset,
        base=standin_base,
        embedding: torch.Tensor | None = None,
    ) -> RunDir:
        run_dir = RunDir(tmp_path / name)
        run_dir.path.mkdir()
        os.link(base, run_dir.base)
        run = Run(
            name=name,
            settings=settings,
            dataset=dataset,
            class_dataset=class_dataset,
            base_fingerprint="standin",
            embedding="" if embedding is None else "given",
            embedding_path=str(tmp_path / f"{name}-word.safetensors"),
            export_path=str(tmp_path / f"{name}.safetensors"),
            tokenizer_path=str(TOKENIZER),
        )
        write_json(run_dir.run_json, run.to_json())
        if embedding is not None:
            save_file({EMBEDDING_KEY: embedding}, run_dir.embedding)
        return run_dir

    return make


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

    def __bool__(self) -> bool:  # the loop asks once a step
        self.left -= 1
        return self.left <= 0 and not self.finish

    def check(self) -> None:
        pass


def work_here(run_dir: RunDir, stop_after: int = 0, finish_after: int = 0) -> list[dict]:
    """Train in this process, which has the libraries loaded already; its events. Errors are raised."""
    events = io.StringIO()
    after = stop_after or finish_after
    stop = StopAfter(after, finish=bool(finish_after)) if after else StopRequest(open_pipe())
    try:
        worker.work(run_dir.path, "cpu", Reporter(events), stop)
    except Stopped:
        assert stop_after
    return [json.loads(line) for line in events.getvalue().splitlines()]


def start_worker(run_dir: RunDir) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "trainer" / "__main__.py"), str(run_dir.path), "--attached"]
    with run_dir.log.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", cwd="/")


def work(run_dir: RunDir, stop_at: int | None = None) -> list[dict]:
    """The worker's events until it ends; it is asked to stop when it reports `stop_at` steps."""
    events = []
    with start_worker(run_dir) as worker:
        for line in worker.stdout:
            events.append(json.loads(line))
            if stop_at is not None and events[-1].get("loss") and events[-1]["step"] >= stop_at and not worker.stdin.closed:
                worker.stdin.close()
    return events
