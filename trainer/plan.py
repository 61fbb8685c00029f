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

    def to(self, device: torch.device) -> "StepPlan":
        """Without waiting for the device where it can: CUDA copies from pinned memory only in its own time."""
        if device.type == "cuda":
            return StepPlan(**{k: v.pin_memory().to(device, non_blocking=True) for k, v in vars(self).items()})
        return StepPlan(**{k: v.to(device) for k, v in vars(self).items()})


def _generator(*parts: int | str) -> torch.Generator:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def photo_indices(seed: int, step: int, batch_size: int, photos: int, concept: str) -> Tensor:
    """The photos of a step, (B,): epoch after epoch, each a fresh permutation, batches running across the seams."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: torch.randperm(photos, generator=_generator(seed, "order", concept, epoch))
        for epoch in {p // photos for p in positions}
    }
    return torch.stack([orders[p // photos][p % photos] for p in positions])


def plan_step(
    seed: int, step: int, batch_size: int, photos: int, latent_shape: tuple[int, ...], concept: str = "instance"
) -> StepPlan:
    """Drawn on the CPU, so that every device trains on the same numbers. `concept`: "instance" or "class"."""
    generator = _generator(seed, "step", concept, step)
    shape = (batch_size, *latent_shape)
    return StepPlan(
        indices=photo_indices(seed, step, batch_size, photos, concept),
        posterior_noise=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        timesteps=torch.randint(0, 1000, (batch_size,), generator=generator),
    )
