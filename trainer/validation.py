"""Knowing when to stop: losses under fixed noise and timesteps, on photos that are trained on, held out, or of the class."""

from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor

from .concept import Batch, Concept
from .config import Settings
from .objective import Predict, sample_losses
from .photos import Dataset
from .plan import StepPlan, generator

TIMESTEPS = (125, 375, 625, 875)
"""The middles of the schedule's quarters: one alone would see only outlines or only detail."""
MAX_PHOTOS = 8


def split_held_out(dataset: Dataset, hold_out: int, seed: int) -> tuple[Dataset, Dataset | None]:
    """Photos to train on, photos to measure on (None: none). ValueError when none would be left to train on."""
    if not hold_out:
        return dataset, None
    count = len(dataset.photos)
    if hold_out >= count:
        raise ValueError(f"hold_out is {hold_out}, but there are only {count} photos. At least one must be left to train on.")
    order = torch.randperm(count, generator=generator(seed, "hold out")).tolist()
    return dataset.subset(sorted(order[hold_out:])), dataset.subset(sorted(order[:hold_out]))


def fixed_batches(concept: Concept, schedule: DDPMScheduler) -> list[Batch]:
    """For up to MAX_PHOTOS photos, as they are without augmentation, one batch with all TIMESTEPS.

    The noise is the same for every run and every measurement: curves of two runs can be laid over each other.
    """
    batches, count = [], len(TIMESTEPS)
    for bucket, photos in enumerate(concept.latents.photos):
        for photo in photos:
            if photo >= MAX_PHOTOS:
                continue
            noise = torch.randn((count, *concept.latents.shapes[bucket]), generator=generator("measure", photo))
            plan = StepPlan(
                photos=torch.full((count,), photo),
                views=torch.zeros(count, dtype=torch.int64),
                posterior_noise=torch.zeros_like(noise),
                noise=noise,
                timesteps=torch.tensor(TIMESTEPS),
                undropped=torch.ones(count, dtype=torch.bool),
                wordings=torch.zeros(count),
            )
            batches.append(concept.batch(plan, bucket, schedule))
    return batches


@torch.no_grad()
def measure(sets: Mapping[str, list[Batch]], predict: Predict) -> dict[str, float]:
    """The mean loss of each set, all timesteps counting alike."""
    found = {}
    for name, batches in sets.items():
        ones = torch.ones(1000, device=batches[0].noisy.device)
        losses: list[Tensor] = [sample_losses(predict(b.noisy, b.timesteps, b.captions), b, ones) for b in batches]
        found[name] = float(torch.cat(losses).mean())
    return found


def make_measure(
    concepts: Mapping[str, Concept], settings: Settings, schedule: DDPMScheduler, predict: Predict, accelerator: Accelerator
) -> Callable[[], dict[str, float]] | None:
    """What the loop calls to measure: the loss of each concept under its name in metrics.jsonl; None when none are wanted."""
    if not settings.validate_every:
        return None
    names = {"held-out": "held_out", "instance": "trained", "class": "class"}
    fixed = {names[name]: fixed_batches(concept, schedule) for name, concept in concepts.items()}

    def measured() -> dict[str, float]:
        with accelerator.autocast():
            return measure(fixed, predict)

    return measured
