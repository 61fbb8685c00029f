"""Masks in the latents and in the loss."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.test_masks import shape
from trainer.data.batches import plan_batch
from trainer.data.concepts import Batch, ConceptEncoder
from trainer.data.latent_cache import to_weights
from trainer.data.latent_store import LatentStore
from trainer.dataset.folder import read_folder
from trainer.models.sd15 import BaseModel, noise_schedule
from trainer.run.events import Reporter
from trainer.run.stop_request import StopRequest
from trainer.training.loss import sample_losses, timestep_weights

from .runs import DREAMBOOTH, losses_of, open_pipe, work_here


@pytest.mark.parametrize("outside", [0.0, 0.25, 1.0])
def test_a_latent_counts_by_the_share_of_its_pixels(outside):
    mask = shape((64, 48))
    found = to_weights(mask, outside)
    pixels = torch.from_numpy(np.array(mask)) / 255
    for y in range(6):
        for x in range(8):
            share = float(pixels[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean())
            assert float(found[0, y, x]) == pytest.approx(outside + (1 - outside) * share, abs=1e-6)


def test_the_gradient_outside_is_exactly_the_weight_times_its_share():
    torch.manual_seed(0)
    noise, predicted = torch.randn(3, 4, 6, 8), torch.randn(3, 4, 6, 8, requires_grad=True)
    counts = timestep_weights(noise_schedule(), 5.0, torch.device("cpu"))
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (8, 16, 44, 32))  # whole latents, and the left half of two
    inside, half = torch.zeros(2, 6, 8, dtype=torch.bool)
    inside[2:4, 1:5] = half[2:4, 5] = True
    outside = ~(inside | half)

    def gradient(weights: torch.Tensor | None) -> torch.Tensor:
        batch = Batch(noise, torch.tensor([10, 500, 900]), noise, [0, 0, 0], weights)
        return torch.autograd.grad(sample_losses(predicted, batch, counts).mean(), predicted)[0]

    alike = gradient(None)
    for weight in (0.0, 0.125, 0.5):  # exact in binary
        found = gradient(to_weights(mask, weight).expand(3, 1, 6, 8))
        assert torch.equal(found[..., inside], alike[..., inside])
        assert torch.equal(found[..., outside], weight * alike[..., outside])
        assert torch.allclose(found[..., half], (0.5 + 0.5 * weight) * alike[..., half], rtol=1e-6, atol=0)
    assert torch.equal(gradient(torch.ones(3, 1, 6, 8)), alike)


@pytest.fixture(scope="module")
def vae(small_base):
    return BaseModel(small_base).vae()


@pytest.fixture
def encode(vae, tmp_path):
    def encoded(dataset):
        encoder = ConceptEncoder(
            vae, [""], tmp_path, LatentStore(tmp_path, vae), Reporter(io.StringIO()), StopRequest(open_pipe())
        )
        return encoder.encode("class", dataset.with_captions([""] * len(dataset.photos)))

    return encoded


def test_every_view_has_its_own_mask_to_the_latent(encode, tmp_path_factory):
    """The stand-in's VAE takes the mean colour of 8 x 8 pixels, and the photos show their own masks in grey."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, size, spot in (("a", (200, 140), (30, 20, 110, 90)), ("b", (120, 190), (50, 60, 110, 160))):
        shape(size, spot).convert("RGB").save(folder / f"{name}.png")
        shape(size, spot).save(folder / f"{name}-masklabel.png")
    Image.new("RGB", (160, 160), "teal").save(folder / "c.png")  # without a mask
    options = {"flip": True, "view_jitter": 0.2, "variants": 2, "mask_weight": 0.0}
    dataset, _ = read_folder(folder, 192, "bucket", **options)
    concept = encode(dataset)
    assert len(concept.latents.photos) == 3  # a bucket each
    seen = 0
    for index in range(40):
        bucket, plan = plan_batch(0, index, 2, concept.source)
        batch = concept.batch(plan, bucket, noise_schedule())
        mean = concept.latents.posteriors[bucket][concept.latents.rows[plan.photos], plan.views][:, 0, 0]
        for latent, weights, photo in zip(mean, batch.mask_weights, plan.photos.tolist(), strict=True):
            if photo == 2:
                assert torch.equal(weights, torch.ones_like(weights))
                continue
            both = torch.stack([latent.flatten(), weights.flatten()])
            assert torch.corrcoef(both)[0, 1] > 0.999
            seen += 1
    assert seen > 20


def test_without_a_mask_nothing_is_weighed(encode, dataset):
    concept = encode(replace(dataset, mask_weight=0.1))
    bucket, plan = plan_batch(0, 0, 2, concept.source)
    assert concept.batch(plan, bucket, noise_schedule()).mask_weights is None


def test_a_run_trains_on_masks_and_otherwise_as_before(make_run, dataset, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    photo = dataset.photos[0]
    shape((photo.width, photo.height), (100, 100, 300, 400)).save(masks / "a.png")
    digest = hashlib.sha256((masks / "a.png").read_bytes()).hexdigest()
    weighed = replace(photo, mask=str(masks / "a.png"), mask_sha256=digest)
    losses = {}
    for name, weight, photos in (("plain", 1.0, [photo]), ("ignored", 1.0, [weighed]), ("weighed", 0.0, [weighed])):
        run_dir = make_run(
            DREAMBOOTH.replace(steps=2, lr_warmup_steps=0, train="lora"),
            name=name,
            dataset=replace(dataset, photos=tuple(photos), mask_weight=weight),
        )
        work_here(run_dir)
        losses[name] = losses_of(run_dir)
    assert losses["plain"] == losses["ignored"]
    assert all(0 < one < other for one, other in zip(losses["weighed"], losses["plain"], strict=True))
