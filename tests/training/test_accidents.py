"""What goes wrong in the middle of a run costs no more than itself: a picture, a measurement, a step."""

import errno
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.context import TrainingError
from trainer.run.files import read_json
from trainer.run.messages import Message
from trainer.run.run_dir import RunDir
from trainer.training.loss import DiffusionLoss
from trainer.training.state import kind_of
from trainer.training.trainer import Trainer

from .runs import DREAMBOOTH, INVERSION, losses_of, work_here

QUICK = DREAMBOOTH.replace(
    train="lora", steps=4, batch_size=1, learning_rate=1e-3, lr_scheduler="constant", lr_warmup_steps=0, lora_rank=2
)
LOOKS = {"validate_every": 1, "sample_prompts": ("a photo of mysks",), "sample_every": 2}
OPTIMIZERS = [("adamw", 1e-3), ("adamw_8bit", 1e-3), ("adafactor", 1e-3), ("prodigy", 1.0)]


def exported(run_dir: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run_dir.load_run().export_path)


def same(one: RunDir, two: RunDir) -> bool:
    first, second = exported(one), exported(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def warnings(run_dir: RunDir) -> list[str]:
    return [str(Message.from_json(warning)) for warning in read_json(run_dir.result_json)["warnings"]]


@pytest.fixture(scope="module")
def errors() -> dict[str, Exception]:
    return {
        "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "disk": OSError(errno.ENOSPC, "No space left on device", "x.png"),
        "other": RuntimeError("something else"),
    }


@pytest.mark.parametrize(
    ("where", "error", "warning"),
    [
        (
            "trainer.models.image_sampler.ImageSampler.draw",
            "memory",
            r"base model standin could not draw the sample pictures \(the memory ran out\)",
        ),
        (
            "trainer.training.sample_images.save_image",
            "disk",
            r"base model standin could not draw the sample pictures \(the disk is full\)",
        ),
        ("trainer.training.validation.mean_losses", "memory", r"under fixed noise .*\(the memory ran out\)"),
        ("trainer.training.sample_images.save_grid", "other", r"grid .*\(RuntimeError: something else\)"),
    ],
)
def test_what_only_looks_at_a_run_cannot_end_it(make_run, monkeypatch, errors, where, error, warning):
    short = QUICK.replace(steps=2)
    plain, watched = make_run(short, "plain"), make_run(short.replace(**LOOKS), "watched")

    def fails(*_) -> None:
        raise errors[error]

    work_here(plain)
    monkeypatch.setattr(where, fails)
    assert work_here(watched)[-1]["event"] == "done"
    assert same(plain, watched)
    told = warnings(watched)
    assert any(re.search(warning, text) for text in told), told
    assert len(told) == len(set(told))  # each once, not at every step


def test_a_file_on_the_way_that_cannot_be_written_is_a_warning(make_run, monkeypatch, errors):
    run_dir = make_run(INVERSION.replace(steps=3, batch_size=1, lr_warmup_steps=0, save_every=1))
    monkeypatch.setattr("trainer.training.export.at_step", lambda *_: (_ for _ in ()).throw(errors["disk"]))
    assert work_here(run_dir)[-1]["event"] == "done"
    assert warnings(run_dir) == ["The weights of step 1 could not be exported (the disk is full)."]


def test_the_state_is_saved_before_anything_is_looked_at(make_run, monkeypatch):
    """What ends the process while it draws cannot be caught: the work until then is kept."""
    run_dir = make_run(QUICK.replace(**LOOKS, checkpoint_every=2))

    def dies(_self, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("trainer.training.sample_images.SampleImages.draw", dies)
    with pytest.raises(KeyboardInterrupt):
        work_here(run_dir)
    assert run_dir.state.is_file()
    monkeypatch.undo()
    plain = make_run(QUICK, "plain")
    work_here(plain)
    work_here(run_dir)
    assert same(plain, run_dir)
    assert [m["step"] for m in run_dir.measurements()] == [0, 1, 2, 3, 4]


@pytest.fixture
def broken_steps(monkeypatch):
    """Make the loss or the gradient of some batches infinite."""

    def break_steps(batches: set[int], how: str) -> None:
        forward = DiffusionLoss.forward

        def broken(self, index: int) -> torch.Tensor:
            loss = forward(self, index)
            if index not in batches:
                return loss
            # The root's gradient at 0 is infinite, and NaN times what it is multiplied with; its value is 0.
            return loss * torch.nan if how == "loss" else loss + (loss * 0).sqrt()

        monkeypatch.setattr(DiffusionLoss, "forward", broken)

    return break_steps


@pytest.mark.parametrize("clipped", [0.0, 1.0])
@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_without_a_finite_gradient_changes_nothing(make_run, broken_steps, how, clipped):
    settings = QUICK.replace(max_grad_norm=clipped, train="unet_and_token")
    one, two = make_run(settings.replace(steps=1), "one"), make_run(settings.replace(steps=2), "two")
    work_here(one)
    broken_steps({1}, how)
    work_here(two)
    assert same(one, two)
    assert warnings(two) == [
        "1 of 2 steps were skipped: their gradients were NaN or infinite. A lower learning rate or precision fp32 may help."
    ]
    first, second = (json.loads(line) for line in two.metrics.read_text().splitlines())
    assert "skipped" not in first
    assert second["skipped"] == 1
    assert ("loss" in second) == (how == "gradient")
    assert two.steps_done() == 2


@pytest.mark.parametrize(("optimizer", "rate"), OPTIMIZERS)
def test_skipped_steps_resume_to_the_same_bytes_with_every_optimizer(make_run, broken_steps, optimizer, rate):
    """The moments are as if the step had not been; the average and the schedule go on."""
    settings = QUICK.replace(optimizer=optimizer, learning_rate=rate, ema_decay=0.9, checkpoint_every=1, lr_scheduler="cosine")
    broken_steps({1, 2}, "gradient")
    whole, stopped = make_run(settings, "whole"), make_run(settings, "stopped")
    work_here(whole)
    for _ in range(3):
        work_here(stopped, stop_after=1)
    work_here(stopped)
    assert same(whole, stopped)
    assert all(tensor.isfinite().all() for tensor in exported(whole).values())
    assert warnings(stopped) == warnings(whole)


@pytest.mark.parametrize(
    ("good", "sentence"),
    [
        (0, r"Of the first 20 steps none gave usable gradients .* The base checkpoint is broken: try another one"),
        (
            2,
            r"The gradients of the last 20 steps, up to step 22, are NaN .*: training diverged\. Lower the learning rate",
        ),
    ],
)
def test_many_skipped_steps_in_a_row_end_the_run_with_its_last_good_state(make_run, monkeypatch, broken_steps, good, sentence):
    monkeypatch.setattr("trainer.training.trainer.REPORT_SECONDS", 0.0)
    run_dir = make_run(QUICK.replace(steps=40))
    broken_steps(set(range(good, 40)), "loss")
    with pytest.raises(TrainingError, match=sentence):
        work_here(run_dir)
    state = {name: tensor for name, tensor in load_file(run_dir.state).items() if name.startswith("param/")}
    assert all(tensor.isfinite().all() for tensor in state.values())
    reference = make_run(QUICK.replace(steps=good or 1, learning_rate=1e-3 if good else 0.0, keep_state=True), "reference")
    monkeypatch.undo()
    work_here(reference)
    wanted = load_file(reference.state)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in state.items())
    assert not Path(run_dir.load_run().export_path).exists()


def test_a_run_of_skipped_steps_alone_is_no_result_however_often_it_is_queued(make_run, monkeypatch, broken_steps):
    monkeypatch.setattr("trainer.training.trainer.REPORT_SECONDS", 0.0)
    short, longer = make_run(QUICK, "short"), make_run(QUICK.replace(steps=30), "longer")
    broken_steps(set(range(30)), "loss")
    for run_dir, count in ((short, 4), (short, 4), (longer, 20), (longer, 21)):
        with pytest.raises(TrainingError, match=f"Of the first {count} steps none gave usable gradients"):
            work_here(run_dir)
        assert not run_dir.finished
    monkeypatch.undo()  # a better driver, say: then it goes on
    assert work_here(longer)[-1]["event"] == "done"


def test_half_precision_is_named_where_it_may_be_at_fault(make_run):
    context = SimpleNamespace(settings=SimpleNamespace(training=SimpleNamespace(precision="bf16", steps=20)), is_main=True)
    trainer = SimpleNamespace(context=context, settings=context.settings, step=20, _saved=20)
    trainer.metrics = SimpleNamespace(flush=lambda: 0.0, skipped_in_a_row=20)
    with pytest.raises(TrainingError, match="precision bf16 is too coarse for it: set precision to fp32, or try another base"):
        Trainer._checked_loss(trainer)


def test_an_8bit_state_waits_for_its_optimizer(make_run, monkeypatch):
    """bitsandbytes breaks with an update of torch or of the driver; hours of work are behind it."""
    settings = QUICK.replace(optimizer="adamw_8bit", train="unet_and_token")
    whole, run_dir = make_run(settings, "whole"), make_run(settings, "broken")
    work_here(whole)
    work_here(run_dir, stop_after=2)
    state = run_dir.state.read_bytes()
    with monkeypatch.context() as patched:
        for name in [name for name in sys.modules if name.split(".")[0] == "bitsandbytes"]:
            patched.delitem(sys.modules, name)
        patched.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(
            ValueError, match=r"8-bit AdamW cannot run here \(\w+Error: .*bitsandbytes.*\)\. Repair it .*pip install"
        ):
            work_here(run_dir)
        assert run_dir.state.read_bytes() == state
        # Nor is it read as the state of another optimizer.
        run = read_json(run_dir.run_json)
        run["settings"]["optimizer"]["optimizer"] = "adamw"
        kept = run_dir.run_json.read_bytes()
        run_dir.run_json.write_text(json.dumps(run))
        with pytest.raises(ValueError, match=r"is of the optimizer AdamW8bit, this run's is AdamW\. Delete this file"):
            work_here(run_dir)
        run_dir.run_json.write_bytes(kept)
    work_here(run_dir)
    assert same(whole, run_dir)


@pytest.mark.parametrize(("optimizer", "rate"), OPTIMIZERS)
def test_a_state_knows_its_optimizer(make_run, optimizer, rate):
    run_dir = make_run(QUICK.replace(optimizer=optimizer, learning_rate=rate, steps=1, keep_state=True))
    work_here(run_dir)
    with safe_open(run_dir.state, "pt") as file:
        kind = json.loads(file.metadata()["optimizer_kind"])
    assert kind == {"adamw": "AdamW", "adamw_8bit": "AdamW8bit", "adafactor": "Adafactor", "prodigy": "Prodigy"}[optimizer]
    assert kind_of(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])) == "AdamW"


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_result_of_the_steps_so_far_is_still_asked_for_after_a_failed_export(make_run, ema_decay):
    settings = QUICK.replace(steps=50, checkpoint_every=1000, ema_decay=ema_decay)
    short, early = make_run(settings.replace(steps=2), "short"), make_run(settings, "early")
    work_here(short)
    blocker = Path(early.load_run().export_path)
    blocker.mkdir()  # a folder where the file shall go
    with pytest.raises(OSError, match=r"directory|denied"):
        work_here(early, finish_after=2)
    blocker.rmdir()
    events = work_here(early)
    assert events[-1]["event"] == "done"
    assert not any("loss" in event for event in events)  # nothing was trained on
    assert same(short, early)
    exported = read_json(early.result_json)["exported"]
    assert (exported["step"], exported["finished_early"]) == (2, True)
    assert not early.finish.exists()


def test_the_result_of_the_steps_so_far_is_that_of_the_step_it_was_asked_at(make_run):
    """Though the state is gone, or could not be saved then: the disk was full."""
    settings = QUICK.replace(steps=50, checkpoint_every=1000)
    short, early = make_run(settings.replace(steps=2), "short"), make_run(settings, "early")
    work_here(short)
    blocker = Path(early.load_run().export_path)
    blocker.mkdir()
    with pytest.raises(OSError, match=r"directory|denied"):
        work_here(early, finish_after=2)
    blocker.rmdir()
    early.state.unlink()
    assert work_here(early)[-1]["event"] == "done"
    assert len(losses_of(early)) == 2
    assert same(short, early)
