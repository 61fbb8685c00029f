"""What a training step sees: a pure function of (seed, step). So resuming needs no sampler or generator state."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepPlan:
    indices: Tensor
    """(B,) int64: which photos."""
    posterior_noise: Tensor
    """(B, 4, h, w) fp32: the draw from the VAE's posterior."""
    noise: Tensor
    """(B, 4, h, w) fp32: what is added and shall be predicted."""
    timesteps: Tensor
    """(B,) int64 in [0, 1000)."""


def _generator(*parts: int | str) -> torch.Generator:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def photo_indices(seed: int, step: int, batch_size: int, photos: int) -> Tensor:
    """The photos of a step, (B,): epoch after epoch, each a fresh permutation, batches running across the seams."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: torch.randperm(photos, generator=_generator(seed, "order", epoch)) for epoch in {p // photos for p in positions}
    }
    return torch.stack([orders[p // photos][p % photos] for p in positions])


def plan_step(seed: int, step: int, batch_size: int, photos: int, latent_shape: tuple[int, int, int]) -> StepPlan:
    """Drawn on the CPU, so that every device trains on the same numbers."""
    generator = _generator(seed, "step", step)
    shape = (batch_size, *latent_shape)
    return StepPlan(
        indices=photo_indices(seed, step, batch_size, photos),
        posterior_noise=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        timesteps=torch.randint(0, 1000, (batch_size,), generator=generator),
    )
