"""Losses under fixed noise and timesteps: on photos that are trained on, held out, or of the class."""

import math
from collections.abc import Mapping

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..context import Context, TrainingError
from ..data.batches import BatchPlan, generator
from ..data.concepts import CLASS, HELD_OUT, INSTANCE, Batch, Concept
from ..dataset.photos import Dataset, check_hold_out
from ..models.sd15 import TRAIN_TIMESTEPS
from .loss import DiffusionLoss, PredictNoise, sample_losses
from .trainer import NOT_MEASURED, Trainer

TIMESTEPS = (125, 375, 625, 875)
"""The middles of the schedule's quarters: one alone would see only outlines or only detail."""
MAX_PHOTOS = 8
METRIC_NAMES = {INSTANCE: "trained", HELD_OUT: "held_out", CLASS: "class"}


class Validation:
    """Measures the loss of each concept, under its name in metrics.jsonl."""

    def __init__(self, context: Context, loss: DiffusionLoss, concepts: Mapping[str, Concept]):
        self.context, self.predict_noise = context, loss.predict_noise
        self.every = context.settings.validation.validate_every
        measured = concepts if self.every else {}
        self.batches = {METRIC_NAMES[name]: fixed_batches(concept, loss.schedule) for name, concept in measured.items()}
        if measured and loss.teaches_class:
            self.batches[METRIC_NAMES[CLASS]] = [loss.taught(batch) for batch in self.batches[METRIC_NAMES[INSTANCE]]]

    def is_due(self, trainer: Trainer) -> bool:
        """Return whether the losses are measured now; not twice at one step, where a run goes on from its saved state."""
        return trainer.is_due(self.every) and all(entry["step"] != trainer.step for entry in trainer.metrics.measured)

    def measure(self) -> dict[str, float] | None:
        """Return the mean loss of each concept; None, and a warning, when it cannot be measured."""
        with self.context.only_warned(NOT_MEASURED):
            losses = mean_losses(self.batches, self.predict_noise)
            if all(map(math.isfinite, losses.values())):
                return losses
            raise TrainingError("the loss is not a number")
        return None


def split_held_out(dataset: Dataset, hold_out: int, seed: int) -> tuple[Dataset, Dataset | None]:
    """Return the photos to train on and those to measure on (None: none). Raises UserError when none are left to train on."""
    if not hold_out:
        return dataset, None
    count = len(dataset.photos)
    check_hold_out(hold_out, count)
    order = torch.randperm(count, generator=generator(seed, "hold out")).tolist()
    return dataset.subset(sorted(order[hold_out:])), dataset.subset(sorted(order[:hold_out]))


def fixed_batches(concept: Concept, schedule: DDPMScheduler) -> list[Batch]:
    """Return for up to MAX_PHOTOS photos, as they are without augmentation, one batch with all TIMESTEPS.

    The noise is the same for every run and every measurement: curves of two runs can be laid over each other.
    """
    batches, count = [], len(TIMESTEPS)
    for bucket, photos in enumerate(concept.latents.photos):
        for photo in photos:
            if photo >= MAX_PHOTOS:
                continue
            noise = torch.randn((count, *concept.latents.shapes[bucket]), generator=generator("measure", photo))
            plan = BatchPlan(
                photos=torch.full((count,), photo),
                views=torch.zeros(count, dtype=torch.int64),
                posterior_noise=torch.zeros_like(noise),
                noise=noise,
                timesteps=torch.tensor(TIMESTEPS),
                keep_caption=torch.ones(count, dtype=torch.bool),
                caption_choice=torch.zeros(count),
            )
            batches.append(concept.batch(plan, bucket, schedule))
    return batches


@torch.no_grad()
def mean_losses(sets: Mapping[str, list[Batch]], predict: PredictNoise) -> dict[str, float]:
    """Return the mean loss of each set of batches, all timesteps counting alike."""
    means = {}
    for name, batches in sets.items():
        ones = torch.ones(TRAIN_TIMESTEPS, device=batches[0].noisy.device)
        losses: list[Tensor] = [sample_losses(predict(b.noisy, b.timesteps, b.captions), b, ones) for b in batches]
        means[name] = float(torch.cat(losses).mean())
    return means
