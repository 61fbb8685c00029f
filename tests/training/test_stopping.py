"""Knowing when to stop: held-out photos, the curves, the best step, sample pictures, class images."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file

from demo import photos
from trainer.dataset.folder import read_folder
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer, noise_schedule
from trainer.run.events import FINISH, GO_ON, SAMPLE
from trainer.run.files import read_json
from trainer.run.summary import stopped
from trainer.training.loss import DiffusionLoss
from trainer.training.validation import split_held_out

from .runs import DREAMBOOTH, INVERSION, TOKENIZER, losses_of, work_here

LEARNING = DREAMBOOTH.replace(batch_size=2, learning_rate=8e-4, lr_scheduler="constant", lr_warmup_steps=3)


def test_held_out_photos_are_never_trained_on_and_at_least_one_is_left(dataset):
    trained, held_out = split_held_out(dataset, 2, seed=0)
    assert len(trained.photos) == len(held_out.photos) == 2
    assert set(trained.photos) | set(held_out.photos) == set(dataset.photos)
    assert split_held_out(dataset, 2, seed=0)[1] == held_out
    assert split_held_out(dataset, 0, seed=0) == (dataset, None)
    with pytest.raises(ValueError, match="hold_out is 4, but there are only 4 photos"):
        split_held_out(dataset, 4, seed=0)


@pytest.mark.parametrize("every", [0, 1])
def test_progress_is_told_each_second_however_often_a_state_is_saved_or_a_loss_measured(make_run, monkeypatch, every):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.training.trainer.time", clock)
    forward = DiffusionLoss.forward

    def slow(loss: DiffusionLoss, batch_index: int) -> torch.Tensor:
        clock.now += 0.4
        return forward(loss, batch_index)

    monkeypatch.setattr(DiffusionLoss, "forward", slow)
    settings = DREAMBOOTH.replace(train="lora", steps=10, checkpoint_every=every, validate_every=every, hold_out=every)
    events = work_here(make_run(settings))
    assert [event["done"] for event in events if "loss" in event] == [3, 6, 9, 10]


def test_a_run_that_learns_by_heart_stops_by_itself_and_exports_its_best_step(make_run, dataset, class_dataset):
    """The held-out photo differs from the others, so its loss turns up while theirs goes on falling."""
    settings = LEARNING.replace(
        steps=120,
        hold_out=1,
        validate_every=4,
        early_stopping="stop_and_export_best",
        prior_loss_weight=0.01,
        batch_size=1,
    )
    run_dir = make_run(settings, class_dataset=class_dataset)
    work_here(run_dir)
    measured = run_dir.measurements()
    held_out = {m["step"]: round(m["held_out"], 4) for m in measured}
    print(f"\nheld-out loss by step: {held_out}")
    steps = len(losses_of(run_dir))
    best = min((s for s in held_out if s), key=held_out.get)
    assert steps < 120
    assert steps == best + 3 * 4
    assert json.loads(run_dir.result_json.read_text())["exported"]["step"] == best
    assert measured[0].keys() == {"step", "trained", "held_out", "class"}
    assert [m["step"] for m in measured] == list(range(0, steps + 1, 4))
    assert not run_dir.best.exists()

    # The exported weights are those of the best step: a run of just so many steps gives the same.
    short = make_run(settings.replace(steps=best, early_stopping="off"), "short", class_dataset)
    work_here(short)
    one, two = (load_file(r.load_run().export_path) for r in (run_dir, short))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_measuring_and_drawing_change_nothing_and_a_stopped_run_repeats_neither(make_run):
    settings = LEARNING.replace(steps=4, batch_size=1, ema_decay=0.9)
    seen = settings.replace(validate_every=2, sample_prompts=("a photo of mysks", "a toy"), sample_every=2)
    plain, watched = make_run(settings, "plain"), make_run(seen, "watched")
    work_here(plain)
    work_here(watched, stop_after=2)
    assert str(stopped(watched, 4)) == "Stopped: the state after step 2 of 4 is saved. Queue the graph again to go on."
    first = {p.name: p.stat().st_mtime_ns for p in watched.samples.iterdir()}
    events = work_here(watched)
    assert losses_of(watched) == losses_of(plain)
    one, two = (load_file(r.load_run().export_path) for r in (plain, watched))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert [m["step"] for m in watched.measurements()] == [0, 2, 4]
    assert {e["step"] for e in events if e["event"] == "sample"} == {4}
    assert stopped(watched, 4) is None
    names = {f"step-{step:06}-{prompt}.png" for step in (0, 2, 4) for prompt in (0, 1)}
    assert {p.name for p in watched.samples.iterdir()} == names | {"grid.jpg"}
    assert first.keys() < names
    assert all((watched.samples / name).stat().st_mtime_ns == when for name, when in first.items())
    with Image.open(watched.grid) as grid:
        assert grid.size == (3 * 256, 20 + 2 * (20 + 256))
        for top in (20, 20 + 20 + 256):  # each row of pictures has its prompt above it
            assert grid.convert("L").crop((0, top, 200, top + 20)).getextrema()[0] < 100
    with Image.open(watched.samples / "step-000004-0.png") as picture:
        assert picture.size == (64, 64)


def test_class_images_are_made_once_by_the_base_and_shared(make_run):
    settings = DREAMBOOTH.replace(
        steps=1, lr_warmup_steps=0, batch_size=1, prior_loss_weight=1.0, class_images=2, class_prompt="a plush toy"
    )
    first, more = make_run(settings, "first"), make_run(settings.replace(class_images=3), "more")
    other = make_run(settings.replace(class_images=1, class_prompt="a photo of a toy"), "other")
    events = work_here(first)
    told = [e for e in events if e.get("phase") == "class_images" and "done" in e]
    assert [e["done"] for e in told] == [1, 2]
    assert told[0]["seconds_left"] > 0 == told[1]["seconds_left"]
    (folder,) = (first.path.parent / "class-images").iterdir()
    made = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in folder.glob("*.png")}
    assert len(set(made.values())) == 2
    events = work_here(more)
    assert [e["done"] for e in events if e.get("phase") == "class_images" and "done" in e] == [3]
    assert sorted(p.name for p in folder.glob("*.png")) == ["0000.png", "0001.png", "0002.png"]
    assert all(hashlib.sha256((folder / name).read_bytes()).digest() == digest for name, digest in made.items())
    work_here(other)
    assert len(list(folder.parent.iterdir())) == 2


def picture(checkpoint, prompt: str) -> torch.Tensor:
    """Latents (4, 8, 8) of a picture without guidance, DDIM, 20 steps, always from the same noise."""
    base = BaseModel(checkpoint)
    unet = base.unet()
    states = encode_prompts(base.text_encoder(), load_tokenizer(str(TOKENIZER)), [prompt])
    scheduler = DDIMScheduler.from_config(noise_schedule().config)
    scheduler.set_timesteps(20)
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for t in scheduler.timesteps:
            latents = scheduler.step(unet(latents, t, states).sample, t, latents).prev_sample
    return latents[0]


@pytest.mark.nightly
def test_prior_preservation_keeps_the_class_picture(make_run, tmp_path, tmp_path_factory):
    """The stand-in is taught a plush toy of the class and a ball; then mysks is trained, with and without class images."""
    folder = tmp_path_factory.mktemp("subjects")
    for name, colours, shift in (("class", ((90, 20, 120), (120, 90, 20)), 60), ("ball", ((220, 60, 30), (30, 60, 220)), 0)):
        photos.draw_photo(*colours, shift=shift).save(folder / f"{name}.png")
    class_prompt = "a photo of a plush toy"
    taught, _ = read_folder(folder, 64)
    taught = taught.with_captions(["a red ball on the grass", class_prompt], token="mysks")
    teaching = make_run(LEARNING.replace(steps=300, lr_scheduler="cosine", lr_warmup_steps=20), "taught", dataset=taught)
    work_here(teaching)
    base = tmp_path / "taught.safetensors"
    before = picture(base, class_prompt)

    of_class = taught.subset([1])
    distances = {}
    for weight in (0.0, 1.0):
        settings = LEARNING.replace(steps=60, learning_rate=2e-4, batch_size=1, prior_loss_weight=weight)
        run_dir = make_run(settings, f"prior-{weight}", of_class if weight else None, base=base)
        work_here(run_dir)
        after = picture(run_dir.load_run().export_path, class_prompt)
        distances[weight] = float((after - before).square().mean().sqrt())
    contrast = float(before.std())
    print(f"\nRMS change of the class picture: {distances[0.0]:.3f} without, {distances[1.0]:.3f} with prior preservation")
    print(f"(the picture itself has a deviation of {contrast:.3f})")
    assert distances[1.0] < 0.6 * distances[0.0]


def test_a_run_that_is_finished_early_gives_what_a_shorter_one_gives(make_run):
    """The user has seen enough: a last measurement, and the weights as they are."""
    settings = DREAMBOOTH.replace(train="lora", lr_scheduler="constant", hold_out=1, validate_every=10)
    short, early = make_run(settings.replace(steps=2), "short"), make_run(settings, "early")
    work_here(short)
    assert work_here(early, finish_after=2)[-1]["event"] == "done"
    one, two = (load_file(run_dir.load_run().export_path) for run_dir in (short, early))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert early.measurements() == short.measurements()
    assert read_json(early.result_json)["exported"] == {"step": 2, "weights": "last", "finished_early": True}
    assert "finished_early" not in read_json(short.result_json)["exported"]


def test_pictures_are_drawn_when_the_user_wants_them_and_change_nothing(make_run):
    settings = DREAMBOOTH.replace(train="lora", steps=4, sample_prompts=("a photo of mysks", "a toy"), sample_every=4)
    plain, watched = make_run(settings, "plain"), make_run(settings, "watched")
    work_here(plain)
    events = work_here(watched, asked={("sample", 0): SAMPLE})  # drawn before the first step: so again after it
    drawn = [(event["step"], event["prompt"]) for event in events if event["event"] == "sample"]
    assert drawn == [(0, 0), (0, 1), (1, 0), (1, 1), (4, 0), (4, 1)]
    with Image.open(watched.grid) as grid:
        assert grid.size == (3 * 256, 20 + 2 * (20 + 256))
    assert losses_of(watched) == losses_of(plain)
    one, two = (load_file(run_dir.load_run().export_path) for run_dir in (plain, watched))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_sample_prompts_none_are_drawn(make_run):
    run_dir = make_run(DREAMBOOTH.replace(train="lora", steps=2), "plain")
    assert "sample" not in {e["event"] for e in work_here(run_dir, asked={("phase", None): SAMPLE})}
    assert not run_dir.samples.exists()


@pytest.mark.parametrize("method", ["dreambooth", "textual_inversion"])
def test_the_wish_for_the_result_is_taken_back_while_the_last_pictures_are_drawn(make_run, method):
    settings = (DREAMBOOTH.replace(train="lora") if method == "dreambooth" else INVERSION).replace(
        steps=4, lr_scheduler="constant", sample_prompts=("a photo of mysks", "a toy"), sample_every=2
    )
    plain, undone = make_run(settings, "plain"), make_run(settings, "undone")
    work_here(plain)
    events = work_here(undone, asked={("sample", 0): FINISH, ("sample", 1): GO_ON})  # asked for at step 1, which is not due
    assert {e["step"] for e in events if e["event"] == "sample"} == {0, 1, 2, 4}
    assert losses_of(undone) == losses_of(plain)
    assert read_json(undone.result_json)["exported"] == {"step": 4, "weights": "last"}
    assert not undone.finish.exists()
    one, two = (load_file(run_dir.load_run().export_path) for run_dir in (plain, undone))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_that_was_ended_early_is_taken_up_again(make_run):
    """As the host does it: the result goes, the state is there. It equals a run that was never ended."""
    settings = DREAMBOOTH.replace(train="lora", steps=4)
    plain, early = make_run(settings, "plain"), make_run(settings, "early")
    work_here(plain)
    base = early.base.read_bytes()
    work_here(early, finish_after=2)
    assert early.can_go_on()
    assert not plain.can_go_on()
    early.result_json.unlink()
    early.base.write_bytes(base)
    work_here(early)
    assert losses_of(early) == losses_of(plain)
    one, two = (load_file(run_dir.load_run().export_path) for run_dir in (plain, early))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not early.can_go_on()
