"""The loss of a diffusion model: how well it predicts the noise, and which timesteps count how much."""

from collections.abc import Callable, Sequence

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor
from torch.nn import functional as F

from .concept import Batch

Predict = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""(noisy latents (B, 4, h, w), timesteps (B,), captions) -> predicted noise (B, 4, h, w)."""


def timestep_weights(schedule: DDPMScheduler, min_snr_gamma: float, device: torch.device) -> Tensor:
    """(1000,) fp32: min(SNR, gamma) / SNR of each timestep (Hang et al. 2023, section 3.4, for noise prediction).

    All 1 for gamma 0.
    """
    if not min_snr_gamma:
        return torch.ones(1000, device=device)
    snr = compute_snr(schedule, torch.arange(1000)).float()
    return (snr.clamp(max=min_snr_gamma) / snr).to(device)


def sample_losses(predicted: Tensor, batch: Batch, weights: Tensor) -> Tensor:
    """(B,) fp32: mean square error of each sample times the weight of its timestep."""
    squares = F.mse_loss(predicted.float(), batch.noise, reduction="none").mean(dim=(1, 2, 3))
    return squares * weights[batch.timesteps]


def concepts_loss(batches: Sequence[Batch], concept_weights: Sequence[float], weights: Tensor, predict: Predict) -> Tensor:
    """Instance loss + prior_loss_weight x class loss, each a mean over its batch (Ruiz et al. 2022, equation 2).

    One forward pass for both where their latents have one shape, as without buckets.
    """
    if len({batch.noisy.shape[2:] for batch in batches}) == 1:
        noisy, timesteps = torch.cat([b.noisy for b in batches]), torch.cat([b.timesteps for b in batches])
        together = predict(noisy, timesteps, [c for b in batches for c in b.captions])
        predictions = together.split([len(b.captions) for b in batches])
    else:
        predictions = [predict(b.noisy, b.timesteps, b.captions) for b in batches]
    losses = [sample_losses(p, b, weights).mean() for p, b in zip(predictions, batches, strict=True)]
    return sum(weight * loss for weight, loss in zip(concept_weights, losses, strict=True))
