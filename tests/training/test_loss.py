"""The loss and its gradient are the published ones, and every photo meets its own latents and its own caption."""

import io
from dataclasses import replace

import pytest
import torch

from trainer.data.caption_cache import cache_captions, distinct_captions
from trainer.data.concepts import ConceptEncoder
from trainer.data.latent_store import LatentStore
from trainer.models.sd15 import BaseModel, load_tokenizer, noise_schedule, tokenize
from trainer.run.events import Reporter
from trainer.run.setting_groups import LossSettings
from trainer.run.stop_request import StopRequest
from trainer.training.loss import concepts_loss, timestep_weights

from .published import published_loss
from .runs import DREAMBOOTH, TOKENIZER, losses_of, open_pipe, work_here


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_photo_meets_its_own_latents_and_caption(make_run, dataset, class_dataset, small_base, batch_size):
    """Everything on: captions of their own, shuffled; caches; prior preservation; token rows; mirror images; accumulation.

    A photo under another's caption, or a mirror image in its place, would give another loss.
    """
    settings = DREAMBOOTH.replace(
        steps=1,
        lr_warmup_steps=0,
        batch_size=batch_size,
        gradient_accumulation_steps=2,
        train="unet_and_token",
        prior_loss_weight=0.7,
        min_snr_gamma=0.5,
    )
    flipped = replace(dataset, flip=True)
    run_dir = make_run(settings, class_dataset=class_dataset, dataset=flipped)
    work_here(run_dir)
    base = BaseModel(small_base)
    unet = base.unet()
    with torch.no_grad():
        parts = [
            published_loss(base, unet, flipped, "instance", batch_size, 0.5, batch)
            + 0.7 * published_loss(base, unet, class_dataset, "class", batch_size, 0.5, batch)
            for batch in (0, 1)
        ]
    assert losses_of(run_dir) == pytest.approx([float(sum(parts) / 2)], rel=1e-5)


@pytest.fixture(scope="module")
def model(small_base):
    base = BaseModel(small_base)
    return base, base.unet().requires_grad_(True)


def gradient(loss: torch.Tensor, unet) -> torch.Tensor:
    """Of some weights in different depths of the U-Net, as one vector."""
    wanted = [p for name, p in unet.named_parameters() if name.endswith(("to_k.weight", "conv1.weight"))]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)])


def our_gradient(model, dataset, class_dataset, folder, prior_loss_weight: float, gamma: float, **noise) -> torch.Tensor:
    base, unet = model
    texts = distinct_captions([dataset, class_dataset])
    tokens = tokenize(load_tokenizer(str(TOKENIZER)), texts)
    reporter, stop = Reporter(io.StringIO()), StopRequest(open_pipe())
    captions = cache_captions(texts, tokens, base.text_encoder(), (False,) * len(texts), folder, stop)
    vae = base.vae()
    encoder = ConceptEncoder(vae, texts, folder, LatentStore(folder, vae), reporter, stop)
    concepts = encoder.encode_all({"instance": dataset, "class": class_dataset}, LossSettings(**noise)).values()
    schedule = noise_schedule()
    batches = [concept.training_batch(0, 0, 2, schedule) for concept in concepts]
    weights = timestep_weights(schedule, gamma, torch.device("cpu"))
    predict = lambda noisy, timesteps, batch: unet(noisy, timesteps, captions.states(batch)).sample  # noqa: E731
    return gradient(concepts_loss(batches, [1.0, prior_loss_weight], weights, predict)[0], unet)


def distance(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).norm() / two.norm())


@pytest.mark.parametrize(("prior_loss_weight", "gamma"), [(0.0, 0.0), (0.7, 0.0), (0.7, 0.5)])
def test_the_gradient_is_that_of_the_published_loss(model, dataset, class_dataset, tmp_path, prior_loss_weight, gamma):
    base, unet = model
    ours = our_gradient(model, dataset, class_dataset, tmp_path, prior_loss_weight, gamma)
    loss = published_loss(base, unet, dataset, "instance", 2, gamma)
    loss = loss + prior_loss_weight * published_loss(base, unet, class_dataset, "class", 2, gamma)
    assert distance(ours, gradient(loss, unet)) < 1e-5


def test_every_option_changes_the_gradient(model, dataset, class_dataset, tmp_path):
    plain = our_gradient(model, dataset, class_dataset, tmp_path, 0.0, 0.0)
    options = [
        our_gradient(model, dataset, class_dataset, tmp_path, 0.7, 0.0),
        our_gradient(model, dataset, class_dataset, tmp_path, 1.4, 0.0),
        our_gradient(model, dataset, class_dataset, tmp_path, 0.0, 0.1),
        our_gradient(model, dataset, class_dataset, tmp_path, 0.0, 0.01),
        our_gradient(model, dataset, class_dataset, tmp_path, 0.0, 0.0, caption_dropout=1.0),
        our_gradient(model, dataset, class_dataset, tmp_path, 0.0, 0.0, noise_offset=0.1),
    ]
    assert all(distance(option, plain) > 1e-3 for option in options)
    # The class part grows in proportion to its weight.
    assert distance(options[1] - plain, 2 * (options[0] - plain)) < 1e-4
