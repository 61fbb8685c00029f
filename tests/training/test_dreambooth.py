"""DreamBooth by the real worker on the stand-in base."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.base_model import BaseModel, encode_prompts, load_tokenizer
from trainer.latents import LATENT_FACTOR, to_tensor
from trainer.photos import Dataset, decode_photo, prepare
from trainer.plan import plan_step

from .conftest import DREAMBOOTH, ROOT, TOKENIZER, start_worker, work


def exported(run_dir) -> dict[str, torch.Tensor]:
    return load_file(run_dir.load_run().export_path)


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) and one[k].dtype == two[k].dtype for k in one)


def test_training_changes_the_unet_alone_and_keeps_names_and_types(make_run, standin_base):
    run_dir = make_run(DREAMBOOTH)
    events = work(run_dir)
    assert events[-1]["event"] == "done", run_dir.log.read_text()
    base, result = load_file(standin_base), exported(run_dir)
    assert result.keys() == base.keys()
    assert all(result[k].dtype == base[k].dtype for k in base)
    changed = {k for k in base if not torch.equal(base[k], result[k])}
    assert changed == {k for k in base if k.startswith("model.diffusion_model.")}
    with safe_open(run_dir.load_run().export_path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == "mysks plush toy"
    assert metadata["subject_trainer.base"] == "standin"
    assert len(run_dir.losses()) == 4
    assert sorted(p.name for p in run_dir.path.iterdir()) == ["lock", "log.txt", "metrics.jsonl", "result.json", "run.json"]


def test_a_learning_rate_of_zero_exports_exactly_the_base(make_run, standin_base):
    run_dir = make_run(replace(DREAMBOOTH, learning_rate=0.0))
    work(run_dir)
    assert same(exported(run_dir), load_file(standin_base))


def published_loss(base: BaseModel, dataset: Dataset, concept: str, batch_size: int) -> float:
    """Mean of || noise - prediction ||^2 of step 0, each photo's own latents under its own caption, from nothing but parts."""
    plan = plan_step(0, 0, batch_size, len(dataset.photos), (4, 8, 8), concept)
    tokenizer = load_tokenizer(str(TOKENIZER))
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    text_encoder, vae, unet = base.text_encoder(), base.vae(), base.unet()
    squares = []
    for i, noise, posterior, t in zip(plan.indices, plan.noise, plan.posterior_noise, plan.timesteps, strict=True):
        photo = dataset.photos[int(i)]
        with open(photo.path, "rb") as file:
            pixels = to_tensor(prepare(decode_photo(file.read()), 64, "center"))[None]
        with torch.no_grad():
            found = vae.encode(pixels).latent_dist
            clean = (found.mean + found.std * posterior) * LATENT_FACTOR
            noisy = alphas[t] ** 0.5 * clean + (1 - alphas[t]) ** 0.5 * noise
            predicted = unet(noisy, t, encode_prompts(text_encoder, tokenizer, [photo.caption])).sample
        squares.append(((predicted - noise) ** 2).mean())
    return float(torch.stack(squares).mean())


@pytest.mark.parametrize(("batch_size", "prior_loss_weight"), [(3, 0.0), (1, 0.7), (3, 0.7)])
def test_the_loss_is_the_published_one(make_run, dataset, class_dataset, standin_base, batch_size, prior_loss_weight):
    settings = replace(DREAMBOOTH, steps=1, lr_warmup_steps=0, batch_size=batch_size, prior_loss_weight=prior_loss_weight)
    run_dir = make_run(settings, class_dataset=class_dataset if prior_loss_weight else None)
    work(run_dir)
    base = BaseModel(standin_base)
    expected = published_loss(base, dataset, "instance", batch_size)
    if prior_loss_weight:
        expected += prior_loss_weight * published_loss(base, class_dataset, "class", batch_size)
    assert run_dir.losses() == pytest.approx([expected], rel=1e-5)


def test_class_images_keep_what_the_model_knows_of_the_class(make_run, class_dataset):
    """The class loss is not only counted: with it the class images are predicted better at the end than without."""
    settings = replace(DREAMBOOTH, steps=30, learning_rate=4e-4, precision="bf16")
    found = {}
    for weight in (0.0, 1.0):
        run_dir = make_run(replace(settings, prior_loss_weight=weight), f"prior-{weight}", class_dataset)
        work(run_dir)
        found[weight] = published_loss(BaseModel(Path(run_dir.load_run().export_path)), class_dataset, "class", 8)
    assert found[1.0] < 0.9 * found[0.0]


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(make_run):
    settings = replace(DREAMBOOTH, steps=40)
    whole, broken = make_run(settings, "whole"), make_run(settings, "broken")
    work(whole)
    events = work(broken, stop_at=1)
    assert events[-1]["event"] == "stopped"
    assert broken.checkpoint.is_file()
    assert not broken.finished
    assert 0 < len(broken.losses()) < 40
    assert work(broken)[-1]["event"] == "done"
    assert "resuming after step" in broken.log.read_text()
    assert broken.losses() == whole.losses()
    assert same(exported(broken), exported(whole))


def test_gradient_checkpointing_gives_the_same_result(make_run):
    plain, thrifty = make_run(DREAMBOOTH, "plain"), make_run(replace(DREAMBOOTH, gradient_checkpointing=True), "thrifty")
    work(plain)
    work(thrifty)
    assert thrifty.losses() == pytest.approx(plain.losses(), rel=1e-4)


def test_a_diverging_run_stops_with_a_reason_and_exports_nothing(make_run):
    run_dir = make_run(replace(DREAMBOOTH, steps=30, learning_rate=1.0, lr_scheduler="constant", lr_warmup_steps=0))
    events = work(run_dir)
    assert events[-1]["event"] == "error"
    assert "diverged" in events[-1]["text"]
    assert "Lower the learning rate" in events[-1]["text"]
    assert not run_dir.finished
    assert not (run_dir.path.parent / "toy.safetensors").exists()


def test_a_photo_that_changed_meanwhile_is_refused(make_run, dataset):
    run_dir = make_run(DREAMBOOTH)
    run = json.loads(run_dir.run_json.read_text())
    run["dataset"]["photos"][1]["sha256"] = "0" * 64
    run_dir.run_json.write_text(json.dumps(run))
    events = work(run_dir)
    assert events[-1] == {
        "event": "error",
        "text": "plush-2.jpg was changed or removed after the dataset was loaded. Queue the graph again.",
    }


def test_the_subject_is_learned(make_run):
    """The loss at the end is a fraction of the loss at the start, on real gradients under autocast."""
    run_dir = make_run(replace(DREAMBOOTH, steps=60, learning_rate=8e-4, precision="bf16", lr_warmup_steps=5))
    work(run_dir)
    losses = run_dir.losses()
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_a_second_process_waits_and_finds_the_run_finished(make_run):
    run_dir = make_run(DREAMBOOTH)
    with start_worker(run_dir) as first:
        while json.loads(first.stdout.readline()).get("phase") != "training":
            pass
        second = work(run_dir)
        first.communicate()
    assert first.returncode == 0
    assert [event.get("phase", event["event"]) for event in second] == [
        "starting",
        "waiting for another process that trains this run",
        "done",
    ]
    assert len(run_dir.losses()) == 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_without_a_host_sigterm_saves_the_state(make_run):
    run_dir = make_run(replace(DREAMBOOTH, steps=400))
    command = [sys.executable, str(ROOT / "trainer" / "__main__.py"), str(run_dir.path)]
    with (
        run_dir.log.open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, encoding="utf-8") as worker,
    ):
        events = (json.loads(line) for line in worker.stdout)
        for event in events:
            if "loss" in event:
                worker.terminate()
                break
        assert list(events)[-1]["event"] == "stopped"
    assert run_dir.checkpoint.is_file()


def test_a_failed_export_keeps_the_training(make_run, tmp_path):
    run_dir = make_run(DREAMBOOTH)
    blocker = tmp_path / "toy.safetensors"
    blocker.mkdir()  # a folder where the file shall go
    assert work(run_dir)[-1]["event"] == "error"
    assert run_dir.checkpoint.is_file()
    blocker.rmdir()
    events = work(run_dir)
    assert events[-1]["event"] == "done"
    assert not any("loss" in event for event in events)  # nothing is trained again
    assert len(run_dir.losses()) == 4


def test_warm_up_works_with_the_constant_schedule(make_run):
    run_dir = make_run(replace(DREAMBOOTH, lr_scheduler="constant", lr_warmup_steps=2))
    work(run_dir)
    rates = [json.loads(line)["learning_rate"] for line in run_dir.metrics.read_text().splitlines()]
    assert rates == [0.0, 5e-5, 1e-4, 1e-4]
