"""Prior preservation by a teacher: the frozen model's own prediction, under the class prompt or outside of masks."""

import copy
import hashlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.unit.test_masks import shape
from trainer.data.concepts import Batch
from trainer.data.latent_cache import to_weights
from trainer.dataset.photos import Dataset
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer
from trainer.parts.adapters import adapters_off
from trainer.parts.lora import add_lora
from trainer.run.metrics_file import read_metrics
from trainer.training.loss import DiffusionLoss

from .published import published_loss
from .runs import DREAMBOOTH, TOKENIZER, losses_of, work_here

CLASS_PROMPT = "a photo of a plush toy"
TAUGHT = DREAMBOOTH.replace(
    steps=2, batch_size=2, lr_scheduler="constant", lr_warmup_steps=0, learning_rate=1e-2, keep_state=True,
    prior="teacher", class_prompt=CLASS_PROMPT, prior_loss_weight=0.5, hold_out=1, validate_every=1,
)  # fmt: skip

OUTSIDE = TAUGHT.replace(prior="teacher_outside_masks", class_prompt="", hold_out=0, validate_every=0)


@pytest.mark.parametrize("train", ["unet", "lora", "lora_and_text_encoder"])
def test_the_loss_is_that_of_the_photos_and_half_of_the_distance_to_the_base(make_run, small_base, dataset, train):
    """In the second step: in the first one there is none. The trained weights of the first are read from its saved state."""
    settings = TAUGHT.replace(train=train, hold_out=0, validate_every=0)
    one, two = make_run(settings.replace(steps=1), "one"), make_run(settings, "two")
    alone = make_run(settings.replace(steps=1, prior="class_images", class_prompt=""), "alone")
    for run_dir in (one, two, alone):
        work_here(run_dir)
    assert losses_of(two)[0] == losses_of(one)[0] == pytest.approx(losses_of(alone)[0], rel=1e-5)
    state = {name.removeprefix("param/"): t for name, t in load_file(one.state).items() if name.startswith("param/")}
    if train == "lora_and_text_encoder":  # the text embeddings of the teacher are the base's, which is what is computed first
        assert losses_of(two)[1] != losses_of(alone)[0]
        return
    base = BaseModel(small_base)
    unet = base.unet()
    teacher = copy.deepcopy(unet)
    params = add_lora(unet, settings) if train == "lora" else dict(unet.named_parameters())
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(state[name])
        tokenizer, text_encoder = load_tokenizer(str(TOKENIZER)), base.text_encoder()
        states = encode_prompts(text_encoder, tokenizer, [CLASS_PROMPT])
        instance = published_loss(base, unet, dataset, "instance", 2, batch=1)
        kept = published_loss(base, unet, dataset, "instance", 2, batch=1, encode=lambda _: states, teacher=teacher)
    assert float(kept) > 1e-3 * float(instance)
    assert losses_of(two)[1] == pytest.approx(float(instance + 0.5 * kept), rel=1e-4)
    assert read_metrics(two.metrics)[1]["instance_loss"] == pytest.approx(float(instance), rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("train", ["unet", "lora"])
def test_the_teacher_has_no_gradient_nor_state_and_the_class_curve_begins_at_nothing(make_run, train, precision):
    run_dir = make_run(TAUGHT.replace(train=train, precision=precision))
    work_here(run_dir)
    curve = [entry["class"] for entry in run_dir.measurements()]
    assert curve[0] == 0 < min(curve[1:])
    state = load_file(run_dir.state)
    names = [name for name in state if name.startswith("param/")]
    trained = load_file(run_dir.load_run().export_path)
    assert len(names) == sum(("lora_" in n and "alpha" not in n) or "diffusion_model" in n for n in trained)
    moments = sum(tensor.numel() for name, tensor in state.items() if name.endswith(("/exp_avg", "/exp_avg_sq")))
    assert moments == 2 * sum(state[name].numel() for name in names)


def test_without_its_adapters_a_model_is_the_base_and_then_has_them_again(small_base):
    unet, base = BaseModel(small_base).unet(), BaseModel(small_base).unet()
    given = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 768)
    params = add_lora(unet, TAUGHT.replace(train="lora"))
    with torch.no_grad():
        for p in params.values():
            p.add_(0.05)
        with adapters_off(unet):
            assert torch.equal(unet(*given).sample, base(*given).sample)
    changed = unet(*given).sample
    assert not torch.allclose(changed, base(*given).sample, atol=1e-3)
    changed.sum().backward()
    assert all(p.grad is not None for p in params.values())


def test_what_is_trained_stays_nearer_to_the_base_under_the_class_prompt(make_run):
    """With the weight of a class, in place of next to none. The photos are learned all the same."""
    far = []
    for weight in (1e-6, 1.0):
        settings = TAUGHT.replace(train="lora", steps=30, learning_rate=1e-3, validate_every=30, prior_loss_weight=weight)
        run_dir = make_run(settings, f"weight-{weight}")
        work_here(run_dir)
        first, last = run_dir.measurements()
        far.append(last["class"])
        assert last["trained"] < first["trained"]
    print(f"\ndistance to the base under the class prompt: {far[0]:.4f} without, {far[1]:.4f} with the teacher")
    assert far[1] < 0.6 * far[0]


@pytest.fixture
def masked(dataset, tmp_path) -> Dataset:
    """The photos, each with a mask of its own in the middle but for the last, which has none; a quarter counts outside."""
    photos = list(dataset.photos)
    for i, photo in enumerate(photos[:-1]):
        file = tmp_path / f"{i}.png"
        shape((photo.width, photo.height), (100 + 20 * i, 90, 400, 380 - 20 * i)).save(file)
        photos[i] = replace(photo, mask=str(file), mask_sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    return replace(dataset, photos=tuple(photos), mask_weight=0.25)


@pytest.mark.parametrize("train", ["unet", "lora", "unet_and_token"])
def test_outside_of_the_masks_the_loss_is_half_of_the_distance_to_the_base(make_run, small_base, masked, train):
    """Beside a quarter of the loss there. In the second step: in the first one there is no distance."""
    settings = OUTSIDE.replace(train=train)
    one, two = make_run(settings.replace(steps=1), "one", dataset=masked), make_run(settings, "two", dataset=masked)
    alone = make_run(settings.replace(steps=1, prior="class_images"), "alone", dataset=masked)
    for run_dir in (one, two, alone):
        work_here(run_dir)
    assert losses_of(two)[0] == losses_of(one)[0] == pytest.approx(losses_of(alone)[0], rel=1e-5)
    if train == "unet_and_token":  # the base's prediction is that under its own text embeddings: see below
        assert losses_of(two)[1] != losses_of(alone)[0]
        return
    state = {name.removeprefix("param/"): t for name, t in load_file(one.state).items() if name.startswith("param/")}
    base = BaseModel(small_base)
    unet = base.unet()
    teacher = copy.deepcopy(unet)
    params = add_lora(unet, settings) if train == "lora" else dict(unet.named_parameters())

    def inside(photo) -> torch.Tensor:
        return to_weights(masked.mask_view(Image.open(photo.mask), photo, 0), 0.0) if photo.mask else torch.ones(1)

    with torch.no_grad():
        for name, p in params.items():
            p.copy_(state[name])
        photos = (base, unet, masked, "instance", 2)
        instance = published_loss(*photos, batch=1, counts=lambda photo: 0.25 + 0.75 * inside(photo))
        kept = published_loss(*photos, batch=1, counts=lambda photo: 1 - inside(photo), teacher=teacher)
    assert float(kept) > 1e-3 * float(instance)
    assert losses_of(two)[1] == pytest.approx(float(instance + 0.5 * kept), rel=1e-4)
    assert read_metrics(two.metrics)[1]["instance_loss"] == pytest.approx(float(instance), rel=1e-4)


def test_outside_of_the_masks_the_base_is_asked_under_the_captions_before_training():
    latents = torch.ones(1, 4, 8, 8)
    weights = torch.full((1, 1, 8, 8), 0.25)
    weights[..., :4] = 1.0
    batch = Batch(latents, torch.tensor([5]), latents, [3], weights)
    asked = []
    captions = SimpleNamespace(frozen_states=lambda captions: asked.append(captions) or torch.zeros(1, 77, 768))
    run = SimpleNamespace(dataset=SimpleNamespace(mask_weight=0.25))
    loss: Any = SimpleNamespace(
        teacher=lambda *_: 3 * latents, captions=captions, dtype=torch.float32, context=SimpleNamespace(settings=OUTSIDE, run=run)
    )
    loss.predict_as_before = partial(DiffusionLoss.predict_as_before, loss)
    outside = DiffusionLoss.held_outside(loss, batch).outside
    assert outside is not None
    assert asked == [[3]]
    assert torch.equal(outside.target, 3 * latents)
    assert torch.equal(outside.weights[..., :4], torch.zeros(1, 1, 8, 4))
    assert torch.equal(outside.weights[..., 4:], torch.full((1, 1, 8, 4), 0.5))
    assert DiffusionLoss.held_outside(loss, replace(batch, mask_weights=None)).outside is None


def test_what_is_trained_stays_nearer_to_the_base_outside_of_the_masks(make_run, masked, small_base):
    """Where nothing of the photos counts: without a teacher the model changes there all the same."""
    only = replace(masked, photos=masked.photos[:1], mask_weight=0.0)
    far = []
    for prior in ("class_images", "teacher_outside_masks"):
        settings = OUTSIDE.replace(prior=prior, train="lora", steps=30, learning_rate=1e-3, prior_loss_weight=1.0)
        run_dir = make_run(settings, prior, dataset=only)
        work_here(run_dir)
        far.append(distance_outside(small_base, run_dir, only, settings))
    print(f"\ndistance to the base outside of the mask: {far[0]:.4f} without, {far[1]:.4f} with the teacher")
    assert far[1] < 0.6 * far[0]


@torch.no_grad()
def distance_outside(base_file, run_dir, dataset: Dataset, settings) -> float:
    """Return the mean squared distance of the LoRA's predictions from the base's, where the mask of the photo is black."""
    base, photo = BaseModel(base_file), dataset.photos[0]
    unet = base.unet()
    teacher = copy.deepcopy(unet)
    params = add_lora(unet, settings)
    state = load_file(run_dir.state)
    for name, p in params.items():
        p.copy_(state[f"param/{name}"])

    def outside(_) -> torch.Tensor:
        return 1 - to_weights(dataset.mask_view(Image.open(photo.mask), photo, 0), 0.0)

    batches = (published_loss(base, unet, dataset, "instance", 2, batch=i, counts=outside, teacher=teacher) for i in range(8))
    return float(sum(batches)) / 8


def test_a_mask_of_the_subject_does_not_weigh_what_the_teacher_says():
    latents = torch.ones(1, 4, 8, 8)
    batch = Batch(noisy=latents, timesteps=torch.tensor([5]), target=latents, captions=[0], mask_weights=latents / 2)
    captions = SimpleNamespace(texts=("", CLASS_PROMPT), frozen_states=lambda captions: torch.zeros(1, 77, 768))
    loss: Any = SimpleNamespace(
        teacher=lambda *_: 3 * latents, captions=captions, dtype=torch.float32, context=SimpleNamespace(settings=TAUGHT)
    )
    loss.predict_as_before = partial(DiffusionLoss.predict_as_before, loss)
    taught = DiffusionLoss.taught(loss, batch)
    assert taught.mask_weights is None
    assert taught.captions == [1]
    assert torch.equal(taught.target, 3 * latents)
