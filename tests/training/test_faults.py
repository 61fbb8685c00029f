"""Whatever ends the worker, at whatever moment: what was saved is whole, and the run ends with the bytes it would have had."""

import errno
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from trainer.context import TrainingError
from trainer.data.disk_cache import DiskCache
from trainer.failures import describe
from trainer.run.run_dir import RunDir, at_step, shorter_run
from trainer.training.loss import concepts_loss
from trainer.training.state import save_state

from .runs import DREAMBOOTH, ROOT, losses_of, start_worker, work_here

PHOTOS = int(os.environ.get("FAULT_PHOTOS", "5000"))
SETTINGS = DREAMBOOTH.replace(train="unet_and_token", steps=8, batch_size=1, checkpoint_every=2, ema_decay=0.9)


def start(run_dir: RunDir) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "trainer" / "__main__.py"), str(run_dir.path)]
    with run_dir.log.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def same(one: RunDir, two: RunDir) -> bool:
    first, second = (load_file(run_dir.load_run().export_path) for run_dir in (one, two))
    return (
        losses_of(one) == losses_of(two)
        and first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
    )


@pytest.mark.parametrize("wanted", [1, pytest.param(25, marks=pytest.mark.nightly)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(make_run, wanted):
    whole = make_run(SETTINGS, "whole")
    began = time.monotonic()
    assert start(whole).wait() == 0
    seconds = time.monotonic() - began
    rng, kills, runs, at_step = random.Random(0), 0, [], []
    while kills < wanted or not runs[-1].finished:
        if not runs or runs[-1].finished:
            runs.append(make_run(SETTINGS, f"broken-{len(runs)}"))
        worker = start(runs[-1])
        try:
            assert worker.wait(rng.uniform(0, seconds) if kills < wanted else None) == 0
        except subprocess.TimeoutExpired:
            worker.kill()  # SIGKILL
            worker.wait()
            kills += 1
            at_step.append(len(losses_of(runs[-1])))
        # Nothing half written lies where a whole file is looked for.
        exported = runs[-1].path.parent / f"{runs[-1].path.name}.safetensors"
        for file in (runs[-1].state, exported):
            if file.is_file():
                load_file(file)
    print(f"\n{kills} kills over {len(runs)} runs, at the steps {at_step}")
    assert all(same(run_dir, whole) for run_dir in runs)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(runs[0].path.parent) in " ".join(p.info["cmdline"] or ())]
    assert left == []
    files = {path.name for run_dir in runs for path in run_dir.path.iterdir()}
    assert files - {"lock"} == {"run.json", "metrics.jsonl", "log.txt", "result.json"}


def test_a_saved_state_that_cannot_be_read_is_named(make_run):
    run_dir = make_run(SETTINGS.replace(train="lora"))
    work_here(run_dir, stop_after=2)
    whole = run_dir.state.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", whole[:8] + b"x" + whole[9:]):
        run_dir.state.write_bytes(damage)
        with pytest.raises(ValueError, match=r"state\.safetensors cannot be read .* the run then begins anew"):
            work_here(run_dir)
    run_dir.state.unlink()
    assert work_here(run_dir)[-1]["event"] == "done"


def test_memory_that_runs_out_while_a_state_is_read_is_not_its_fault(make_run, monkeypatch):
    """Otherwise the user would be told to delete hours of work."""
    run_dir = make_run(SETTINGS.replace(train="lora"))
    work_here(run_dir, stop_after=2)

    def fails(*_) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "load_state_dict", fails)
        with pytest.raises(torch.OutOfMemoryError) as error:
            work_here(run_dir)
    assert str(describe(error.value, run_dir.path)).startswith("The memory ran out: with SD v1.5 this run needs about")
    assert work_here(run_dir)[-1]["event"] == "done"


PHASES = {
    "encoding captions": "transformers.CLIPTextModel.forward",
    "class images": "trainer.models.image_sampler.ImageSampler._sample",
    "decoding class images": "diffusers.AutoencoderKL.decode",
    "reading photos": "trainer.data.latent_cache.decode_photo",
    "encoding photos": "diffusers.AutoencoderKL.encode",
    "steps": "trainer.training.loss.concepts_loss",
    "optimizer": "torch.optim.AdamW.step",
    "saving": "trainer.training.trainer.save_state",
    "export": "trainer.training.export.write_tensors",
}
"""What runs out of memory, by the part of the run in which it does. In those that only look at a run it is a warning."""


@pytest.mark.parametrize("phase", PHASES)
def test_memory_that_runs_out_is_told_in_every_part_of_a_run(make_run, monkeypatch, phase):
    has_class = "class" in phase
    settings = SETTINGS.replace(
        train="lora",
        steps=1,
        lr_warmup_steps=0,
        ema_decay=0.0,
        keep_state=phase == "saving",
        class_images=int(has_class),
        class_prompt="a toy" if has_class else "",
    )
    run_dir = make_run(settings)

    def fails(*_, **__) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(PHASES[phase], fails)
    if phase == "decoding class images":
        monkeypatch.setattr("trainer.models.image_sampler.DRAWING_STEPS", 1)
    with pytest.raises(RuntimeError) as error:
        work_here(run_dir)
    assert str(describe(error.value, run_dir.path)).startswith("The memory ran out: with SD v1.5 this run needs about")
    assert not run_dir.finished


@pytest.fixture
def saved_steps(monkeypatch) -> list[int]:
    """The steps whose states are written from now on."""
    steps = []

    def save(path: Path, step: int, *state) -> None:
        steps.append(step)
        save_state(path, step, *state)

    monkeypatch.setattr("trainer.training.trainer.save_state", save)
    return steps


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, []),
        ({"checkpoint_every": 2}, [2, 4]),
        ({"keep_state": True}, [5]),
        ({"ema_decay": 0.9}, [5]),
        ({"hold_out": 1, "validate_every": 2, "early_stopping": "export_best"}, [5]),
    ],
)
def test_a_state_is_written_where_it_is_of_use(make_run, saved_steps, settings, steps):
    """Not where the result follows at once, unless the weights after the last step are not the result."""
    work_here(make_run(DREAMBOOTH.replace(train="lora", steps=5, batch_size=1, **settings)))
    assert saved_steps == steps


def test_states_are_written_by_the_clock_where_no_steps_are_said(make_run, saved_steps, monkeypatch):
    monkeypatch.setattr("trainer.training.trainer.STATE_SECONDS", 0)
    monkeypatch.setattr("trainer.training.trainer.STATE_SHARE", 1e9)
    work_here(make_run(DREAMBOOTH.replace(train="lora", steps=5, batch_size=1)))
    assert saved_steps == [1, 2, 3, 4]


def test_an_export_that_fails_costs_no_step(make_run, monkeypatch):
    settings = DREAMBOOTH.replace(train="lora", steps=5, batch_size=1)
    whole, failing = make_run(settings, "whole"), make_run(settings, "failing")
    work_here(whole)

    def fails(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("trainer.training.export.write_tensors", fails)
        with pytest.raises(OSError, match="No space left"):
            work_here(failing)
    assert failing.saved_step() == 5
    work_here(failing)
    assert same(failing, whole)


def test_a_photo_has_not_changed_when_there_is_no_memory_to_read_it(make_run, monkeypatch):
    run_dir = make_run(SETTINGS.replace(train="lora"))
    read = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.suffix == ".safetensors" or path.suffix == ".json":
            return read(path)
        raise OSError(errno.ENOMEM, "Cannot allocate memory", str(path))

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="Cannot allocate memory") as error:
        work_here(run_dir)
    assert str(describe(error.value, run_dir.path)).startswith("The memory ran out")


def test_a_loss_of_exactly_zero_stops_the_run_and_keeps_the_last_state(make_run, monkeypatch):
    run_dir = make_run(SETTINGS.replace(train="lora"))
    work_here(run_dir, stop_after=2)
    state = run_dir.state.read_bytes()
    monkeypatch.setattr("trainer.training.loss.concepts_loss", lambda *given: 0.0 * concepts_loss(*given))
    with pytest.raises(TrainingError, match="exactly 0 at step 3"):
        work_here(run_dir)
    assert run_dir.state.read_bytes() == state


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many bytes, or give the one that is mounted another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(count: int) -> Path:
        options = f"remount,size={count}" if folder.is_mount() else f"size={count}"
        found = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if found.returncode:
            pytest.skip(f"needs the right to mount a file system: {found.stderr.strip()}")
        return folder

    yield size
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)  # this process still maps files of it


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_costs_nothing_but_the_step(make_run, small_disk):
    settings = SETTINGS.replace(train="lora", steps=6, checkpoint_every=1)
    whole, moved = make_run(settings, "whole"), make_run(settings, "moved")
    work_here(whole, stop_after=2)
    state = whole.state.stat().st_size
    work_here(whole)
    on_disk = RunDir(small_disk(state * 3 // 2))  # one state fits, the next beside it does not
    on_disk.run_json.write_bytes(moved.run_json.read_bytes())
    on_disk.base.symlink_to(moved.base)
    with pytest.raises(OSError, match="The disk is full") as error:
        work_here(on_disk)
    assert "state.safetensors" in str(describe(error.value, on_disk.path))
    assert any(name.startswith("param/") for name in load_file(on_disk.state))
    small_disk(state * 10)
    assert work_here(on_disk)[-1]["event"] == "done"
    assert same(on_disk, whole)


@pytest.mark.parametrize("train", ["lora", pytest.param("unet_and_token", marks=pytest.mark.nightly)])
def test_a_run_made_longer_equals_one_asked_for_at_once(make_run, train):
    settings = SETTINGS.replace(train=train, steps=5, lr_scheduler="constant", optimizer="adamw_8bit")
    whole = make_run(settings, "whole")
    work_here(whole)
    shorter = make_run(settings.replace(steps=2, keep_state=True), "shorter")
    work_here(shorter)
    longer = make_run(settings, "longer")
    assert shorter_run(longer.load_run(), longer.path.parent) == shorter
    for there, here in ((shorter.metrics, longer.metrics), (shorter.state, longer.state)):
        here.write_bytes(there.read_bytes())
    work_here(longer)
    assert same(longer, whole)
    assert not whole.state.exists()


@pytest.mark.parametrize("train", ["lora", pytest.param("unet_and_token", marks=pytest.mark.nightly)])
def test_what_there_is_is_exported_on_a_stop_if_wanted(make_run, train):
    settings = SETTINGS.replace(train=train, lr_scheduler="constant", lr_warmup_steps=0)
    short, whole = make_run(settings.replace(steps=2), "short"), make_run(settings, "whole")
    stopped = make_run(settings.replace(export_on_cancel=True), "stopped")
    work_here(short)
    work_here(whole)
    events = work_here(stopped, stop_after=2)
    run = stopped.load_run()
    file = at_step(run.export_path, 2)
    assert {"event": "saved", "file": file.name} in events
    assert not Path(run.export_path).exists()
    wanted, got = load_file(short.load_run().export_path), load_file(file)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    work_here(stopped)
    assert same(stopped, whole)


def anonymous(pid: int | str) -> float:
    """MB of a process's memory that is not of a file: the rest the system can take back at any time."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_computed_of_the_photos_lies_on_the_disk(tmp_path):
    cache, before = DiskCache(tmp_path), anonymous("self")
    for number in range(200):
        cache.append(torch.full((77, 768), float(number)))  # the states of a caption
    stacked = cache.stack()
    total = sum(float(states.sum()) for states in stacked)  # not of all at once: torch would copy them to sum them up
    assert total == 77 * 768 * sum(range(200))
    assert anonymous("self") - before < 15  # of 47
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_photos(make_run, dataset):
    """Each has a caption of its own, whose states take 0.24 MB."""

    def held(count: int) -> float:
        """MB of the worker's memory that is not of a file, when all is encoded."""
        given = [dataset.photos[number % 4] for number in range(count)]
        photos = tuple(replace(photo, caption=f"a mysks, number {number}") for number, photo in enumerate(given))
        settings = SETTINGS.replace(train="lora", steps=1, lr_warmup_steps=0)
        run_dir = make_run(settings, f"photos-{count}", dataset=replace(dataset, photos=photos))
        memory = []
        with start_worker(run_dir) as worker:
            for line in worker.stdout:
                if json.loads(line).get("phase") == "training" and not memory:
                    memory.append(anonymous(worker.pid))
        assert run_dir.finished
        return memory[0]

    few, many = held(PHOTOS // 10), held(PHOTOS)
    print(f"\n{PHOTOS // 10} photos: {few:.0f} MB, {PHOTOS} photos: {many:.0f} MB")
    assert many - few < 0.2 * 0.24 * 0.9 * PHOTOS
