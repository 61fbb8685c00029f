"""DreamBooth by the real worker on the stand-in base."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .runs import DREAMBOOTH, ROOT, losses_of, sentence, start_worker, work, work_here


def exported(run_dir) -> dict[str, torch.Tensor]:
    return load_file(run_dir.load_run().export_path)


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) and one[k].dtype == two[k].dtype for k in one)


def test_training_changes_the_unet_alone_and_keeps_names_and_types(make_run, small_base):
    run_dir = make_run(DREAMBOOTH)
    events = work_here(run_dir)
    assert events[-1]["event"] == "done"
    base, result = load_file(small_base), exported(run_dir)
    assert result.keys() == base.keys()
    assert all(result[k].dtype == base[k].dtype for k in base)
    changed = {k for k in base if not torch.equal(base[k], result[k])}
    assert changed == {k for k in base if k.startswith("model.diffusion_model.")}
    with safe_open(run_dir.load_run().export_path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == "mysks plush toy"
    assert metadata["subject_trainer.base"] == "standin"
    assert len(losses_of(run_dir)) == 4
    assert sorted(p.name for p in run_dir.path.iterdir()) == ["lock", "metrics.jsonl", "result.json", "run.json"]


def test_a_learning_rate_of_zero_exports_exactly_the_base(make_run, small_base):
    run_dir = make_run(DREAMBOOTH.replace(learning_rate=0.0))
    work_here(run_dir)
    assert same(exported(run_dir), load_file(small_base))


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(make_run, capfd):
    """In the middle of accumulated batches, and with the average of the weights."""
    settings = DREAMBOOTH.replace(steps=8, batch_size=1, gradient_accumulation_steps=2, ema_decay=0.9)
    whole, broken = make_run(settings, "whole"), make_run(settings, "broken")
    work_here(whole)
    work_here(broken, stop_after=3)
    assert broken.state.is_file()
    assert not broken.finished
    assert len(losses_of(broken)) == 3
    assert work_here(broken)[-1]["event"] == "done"
    assert "resuming after step 3" in capfd.readouterr().err
    assert losses_of(broken) == losses_of(whole)
    assert same(exported(broken), exported(whole))


def test_every_so_many_steps_a_file_is_kept_that_a_run_of_so_many_would_give(make_run):
    settings = DREAMBOOTH.replace(train="lora", batch_size=1, lr_scheduler="constant", lr_warmup_steps=0)
    long, short = make_run(settings.replace(steps=5, save_every=2), "long"), make_run(settings.replace(steps=2), "short")
    events = work_here(long)
    work_here(short)
    kept = sorted(long.path.parent.glob("long-step-*"))
    assert [path.name for path in kept] == ["long-step-000002.safetensors", "long-step-000004.safetensors"]
    assert [event["file"] for event in events if event["event"] == "saved"] == [path.name for path in kept]
    assert same(load_file(kept[0]), exported(short))
    assert not same(load_file(kept[1]), exported(long))


def test_gradient_checkpointing_gives_the_same_result(make_run):
    plain, thrifty = make_run(DREAMBOOTH, "plain"), make_run(DREAMBOOTH.replace(gradient_checkpointing=True), "thrifty")
    work_here(plain)
    work_here(thrifty)
    assert losses_of(thrifty) == pytest.approx(losses_of(plain), rel=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "train"),
    [
        ("adamw", "unet_and_token"),
        ("adamw_8bit", "unet_and_token"),
        ("adafactor", "unet"),
        pytest.param("adamw_8bit", "unet_and_text_encoder", marks=pytest.mark.nightly),
    ],
)
def test_low_memory_gives_the_same_result_but_for_rounding_and_resumes_exactly(make_run, optimizer, train, small_base):
    """The masters' first bf16 copies differ where a number lies in the middle of two; steps as long as bf16 could not take."""
    own = {"train": train, "optimizer": optimizer, "learning_rate": 1e-4, "precision": "bf16"}
    own |= {"hold_out": 1, "validate_every": 2, "early_stopping": "export_best"}
    plain, low, broken = (
        make_run(DREAMBOOTH.replace(steps=4, low_memory=name != "plain", **own), name) for name in ("plain", "low", "broken")
    )
    work_here(plain)
    work_here(low)
    work_here(broken, stop_after=2)
    work_here(broken)
    assert losses_of(low) == pytest.approx(losses_of(plain), rel=0.02)
    assert same(exported(broken), exported(low))
    base, one, two = (load_file(small_base), exported(plain), exported(low))
    trained = [name for name in base if not torch.equal(base[name], one[name])]
    changes = [torch.cat([(result[name] - base[name]).flatten() for name in trained]) for result in (one, two)]
    assert torch.cosine_similarity(*changes, dim=0) > 0.98


def test_a_diverging_run_stops_with_a_reason_and_exports_nothing(make_run):
    run_dir = make_run(DREAMBOOTH.replace(steps=30, learning_rate=1.0, lr_scheduler="constant", lr_warmup_steps=0))
    events = work(run_dir)
    assert events[-1]["event"] == "error"
    assert "diverged" in sentence(events[-1])
    assert "Lower the learning rate" in sentence(events[-1])
    assert not run_dir.finished
    assert not (run_dir.path.parent / "toy.safetensors").exists()


def test_a_photo_that_changed_meanwhile_is_refused(make_run):
    run_dir = make_run(DREAMBOOTH)
    run = json.loads(run_dir.run_json.read_text())
    run["dataset"]["photos"][1]["sha256"] = "0" * 64
    run_dir.run_json.write_text(json.dumps(run))
    with pytest.raises(
        ValueError, match=r"plush-2\.jpg was changed or removed after the dataset was loaded\. Queue the graph again"
    ):
        work_here(run_dir)


def test_a_second_process_waits_and_finds_the_run_finished(make_run):
    run_dir, phases = make_run(DREAMBOOTH), []
    with start_worker(run_dir) as first:
        while json.loads(first.stdout.readline()).get("phase") != "training":
            pass
        psutil.Process(first.pid).suspend()
        with start_worker(run_dir) as second:
            for line in second.stdout:
                event = json.loads(line)
                phases.append(event.get("phase", event["event"]))
                if phases[-1] == "waiting":
                    psutil.Process(first.pid).resume()
        first.communicate()
    assert first.returncode == 0
    assert phases == ["starting", "waiting", "done"]
    assert len(losses_of(run_dir)) == 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])  # the second is Ctrl-C
def test_without_a_host_a_signal_saves_the_state(make_run, number):
    run_dir = make_run(DREAMBOOTH.replace(steps=400))
    command = [sys.executable, str(ROOT / "trainer" / "__main__.py"), str(run_dir.path)]
    with (
        run_dir.log.open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, encoding="utf-8") as worker,
    ):
        events = (json.loads(line) for line in worker.stdout)
        for event in events:
            if "loss" in event:
                worker.send_signal(number)
                break
        assert list(events)[-1]["event"] == "stopped"
    assert worker.returncode == 0
    assert run_dir.state.is_file()


@pytest.mark.parametrize("arguments", [[], ["{run}", "--devise", "cpu"], ["{run}"]])
def test_a_worker_that_is_called_wrongly_says_how(tmp_path, arguments):
    command = [sys.executable, str(ROOT / "trainer" / "__main__.py"), *(text.format(run=tmp_path) for text in arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: " in done.stderr


def test_a_failed_export_keeps_the_training(make_run, tmp_path):
    run_dir = make_run(DREAMBOOTH)
    blocker = tmp_path / "toy.safetensors"
    blocker.mkdir()  # a folder where the file shall go
    with pytest.raises(OSError, match=r"directory|denied"):
        work_here(run_dir)
    assert run_dir.state.is_file()
    blocker.rmdir()
    events = work_here(run_dir)
    assert events[-1]["event"] == "done"
    assert not any("loss" in event for event in events)  # nothing is trained again
    assert len(losses_of(run_dir)) == 4


def test_warm_up_works_with_the_constant_schedule(make_run):
    run_dir = make_run(DREAMBOOTH.replace(lr_scheduler="constant", lr_warmup_steps=2))
    work_here(run_dir)
    rates = [json.loads(line)["learning_rate"] for line in run_dir.metrics.read_text().splitlines()]
    assert rates == [0.0, 5e-5, 1e-4, 1e-4]
