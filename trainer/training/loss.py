"""The loss of a diffusion model: how well it predicts the noise, and which timesteps count how much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from torch.nn import functional as F

from ..context import Context
from ..data.caption_cache import Captions
from ..data.concepts import CLASS, Batch, Concept, Outside
from ..models.sd15 import DTYPES, TRAIN_TIMESTEPS, noise_schedule
from ..parts.part import UNetPart

PredictNoise = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""(noisy latents (B, 4, h, w), timesteps (B,), captions) -> predicted noise (B, 4, h, w)."""
Teacher = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The same from text embeddings (B, 77, 768), as the frozen model predicts; all in the compute dtype."""


class DiffusionLoss(nn.Module):
    """The loss of a batch: that of each concept times its weight, under the run's noise, timesteps and captions.

    A module that holds all that is trained: data parallel training wraps it.
    """

    def __init__(
        self,
        context: Context,
        unet_part: UNetPart,
        captions: Captions,
        concepts: Mapping[str, Concept],
        concept_weights: Mapping[str, float],
    ):
        """Take what the loss is computed from. `concept_weights`: what counts how much; concepts not named are only measured.

        Where the U-Net as it was teaches, too, this takes the place of class images, with their weight.
        """
        super().__init__()
        self.context, self.unet, self.captions = context, unet_part.model, captions
        self.dtype = DTYPES[context.settings.training.precision]
        self.text_encoder = captions.text_encoder
        self.trained = {name: concepts[name] for name in concept_weights if name in concepts}
        self.concept_weights = [concept_weights[name] for name in self.trained]
        self.teacher: Teacher | None = unet_part.teach if context.settings.has_teacher else None
        self.teaches_class = context.settings.has_class_teacher
        if self.teaches_class:
            self.concept_weights.append(concept_weights[CLASS])
        self.schedule = noise_schedule()
        self.timestep_weights = timestep_weights(self.schedule, context.settings.loss.min_snr_gamma, context.device)

    def forward(self, batch_index: int) -> Tensor:
        """Return (2,) the loss of a batch (0, 1, ...), or of the part that this process has, and that of its photos alone."""
        training, accelerator = self.context.settings.training, self.context.accelerator
        rank, world_size = accelerator.process_index, accelerator.num_processes
        batches = [
            concept.training_batch(training.seed, batch_index, training.batch_size, self.schedule, rank, world_size)
            for concept in self.trained.values()
        ]
        if self.teaches_class:
            batches.append(self.taught(batches[0]))
        elif self.teacher:
            batches[0] = self.held_outside(batches[0])
        return concepts_loss(batches, self.concept_weights, self.timestep_weights, self.predict_noise)

    @torch.no_grad()
    def taught(self, batch: Batch) -> Batch:
        """Return the same noisy latents under the class prompt, with what the teacher predicts for them in the noise's place."""
        class_prompt = self.captions.texts.index(self.context.settings.dreambooth.class_prompt)
        captions = [class_prompt] * len(batch.captions)
        predicted = self.predict_as_before(batch, captions)
        return replace(batch, captions=captions, target=predicted, mask_weights=None)  # masks are about the subject

    @torch.no_grad()
    def held_outside(self, batch: Batch) -> Batch:
        """Return the batch with what the teacher predicts for it under its own captions, to be kept outside of the masks."""
        if batch.mask_weights is None:  # none of the photos that this process has
            return batch
        settings, least = self.context.settings.dreambooth, self.context.run.dataset.mask_weight
        share = (1 - batch.mask_weights) / (1 - least)  # of a latent's pixels, that lie outside
        target = self.predict_as_before(batch, batch.captions)
        return replace(batch, outside=Outside(target, settings.prior_loss_weight * share))

    def predict_as_before(self, batch: Batch, captions: Sequence[int]) -> Tensor:
        """Return (B, 4, h, w) fp32: what the model predicted under these captions before it was trained."""
        assert self.teacher
        states = self.captions.frozen_states(captions)
        return self.teacher(batch.noisy.to(self.dtype), batch.timesteps, states.to(self.dtype)).float()

    def predict_noise(self, noisy: Tensor, timesteps: Tensor, captions: Sequence[int]) -> Tensor:
        """Return the U-Net's prediction (B, 4, h, w), in its own type, for noisy latents (B, 4, h, w) at timesteps (B,)."""
        return self.unet(noisy.to(self.dtype), timesteps, self.captions.states(captions).to(self.dtype)).sample


def timestep_weights(schedule: DDPMScheduler, min_snr_gamma: float, device: torch.device) -> Tensor:
    """Return (1000,) fp32: min(SNR, gamma) / SNR of each timestep (Hang et al. 2023, section 3.4, for noise prediction).

    All are 1 for gamma 0.
    """
    if not min_snr_gamma:
        return torch.ones(TRAIN_TIMESTEPS, device=device)
    snr = compute_snr(schedule, torch.arange(TRAIN_TIMESTEPS)).float()
    return (snr.clamp(max=min_snr_gamma) / snr).to(device)


def sample_losses(predicted: Tensor, batch: Batch, weight_of_timestep: Tensor) -> Tensor:
    """Return (B,) fp32: the mean square error of each sample times the weight of its timestep, of all 1000.

    With masks, each latent's error counts by its weight, and so does its distance from what is kept outside of them. The mean is
    still over all latents: what lies within a mask has the gradient that it has without one.
    """
    predicted = predicted.float()
    squares = F.mse_loss(predicted, batch.target, reduction="none")
    if batch.mask_weights is not None:
        squares = squares * batch.mask_weights
    if batch.outside:
        squares = squares + batch.outside.weights * F.mse_loss(predicted, batch.outside.target, reduction="none")
    return squares.mean(dim=(1, 2, 3)) * weight_of_timestep[batch.timesteps]


def concepts_loss(
    batches: Sequence[Batch], concept_weights: Sequence[float], weight_of_timestep: Tensor, predict: PredictNoise
) -> Tensor:
    """Return (2,) the loss of all concepts, and the instance loss alone, which has no gradient.

    The first is instance loss + prior_loss_weight x class loss, each a mean over its batch (Ruiz et al. 2022, equation 2).

    `weight_of_timestep` is (1000,). One forward pass serves both where their latents have one shape, as without buckets.
    """
    if len({batch.noisy.shape[2:] for batch in batches}) == 1:
        noisy, timesteps = torch.cat([b.noisy for b in batches]), torch.cat([b.timesteps for b in batches])
        together = predict(noisy, timesteps, [c for b in batches for c in b.captions])
        predictions = together.split([len(b.captions) for b in batches])
    else:
        predictions = tuple(predict(b.noisy, b.timesteps, b.captions) for b in batches)
    losses = [sample_losses(p, b, weight_of_timestep).mean() for p, b in zip(predictions, batches, strict=True)]
    total = torch.stack([weight * loss for weight, loss in zip(concept_weights, losses, strict=True)]).sum()
    photos_alone = losses[0].detach()
    if batches[0].outside:  # without what the teacher says outside of their masks
        photos_alone = sample_losses(predictions[0].detach(), replace(batches[0], outside=None), weight_of_timestep).mean()
    return torch.stack([total, photos_alone])
