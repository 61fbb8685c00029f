"""What a training step sees: a pure function of (seed, step). So resuming needs no sampler or generator state."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting for the device where it can: CUDA copies from pinned memory in its own time."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True)
class StepPlan:
    """One batch."""

    photos: Tensor
    """(B,) int64: which photos; all of one bucket."""
    views: Tensor
    """(B,) int64: which view of each."""
    posterior_noise: Tensor
    """(B, 4, h, w) fp32: the draw from the VAE's posterior."""
    noise: Tensor
    """(B, 4, h, w) fp32: what is added and shall be predicted."""
    timesteps: Tensor
    """(B,) int64 in [0, 1000)."""
    undropped: Tensor
    """(B,) bool: False where the caption is left empty."""
    wordings: Tensor
    """(B,) fp32 in [0, 1): which of its captions, where a photo has several."""

    def part(self, rank: int, of: int) -> "StepPlan":
        """The share of one of several processes: B / of samples."""
        return StepPlan(**{f.name: getattr(self, f.name).chunk(of)[rank] for f in fields(self)})

    def to(self, device: torch.device) -> "StepPlan":
        return StepPlan(**{name: to_device(tensor, device) for name, tensor in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What batches are drawn from."""

    concept: str
    """ "instance" or "class": each has random numbers of its own."""
    buckets: tuple[tuple[int, ...], ...]
    """Photos of each bucket, a photo as often as it is repeated."""
    latent_shapes: tuple[tuple[int, int, int], ...]
    """(4, h, w) of each bucket."""
    views: int = 1
    caption_dropout: float = 0.0
    noise_offset: float = 0.0


def generator(*parts: int | str) -> torch.Generator:
    """Random numbers of its own for each sequence of parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _shuffled(items: Sequence, *parts: int | str) -> list:
    return [items[i] for i in torch.randperm(len(items), generator=generator(*parts)).tolist()]


def batch_photos(seed: int, step: int, batch_size: int, sampling: Sampling) -> tuple[int, list[int]]:
    """Bucket and photos of a batch: epoch after epoch, each a fresh permutation.

    With one bucket, batches run across the seams of epochs. With several, a batch is of one bucket; the last of a bucket is
    filled up with its first photos, and the order of the batches is shuffled too.
    """
    if len(sampling.buckets) == 1:
        (photos,) = sampling.buckets
        positions = range(step * batch_size, (step + 1) * batch_size)
        epochs = {p // len(photos) for p in positions}
        orders = {epoch: _shuffled(photos, seed, "order", sampling.concept, epoch) for epoch in epochs}
        return 0, [orders[p // len(photos)][p % len(photos)] for p in positions]
    batches = [-(-len(photos) // batch_size) for photos in sampling.buckets]
    epoch, position = divmod(step, sum(batches))
    slots = [(bucket, start) for bucket, count in enumerate(batches) for start in range(count)]
    bucket, start = _shuffled(slots, seed, "batches", sampling.concept, epoch)[position]
    order = _shuffled(sampling.buckets[bucket], seed, "order", sampling.concept, epoch, bucket)
    return bucket, [order[i % len(order)] for i in range(start * batch_size, (start + 1) * batch_size)]


def plan_step(seed: int, step: int, batch_size: int, sampling: Sampling) -> tuple[int, StepPlan]:
    """Bucket and batch, drawn on the CPU, so that every device trains on the same numbers."""
    bucket, photos = batch_photos(seed, step, batch_size, sampling)
    numbers = generator(seed, "step", sampling.concept, step)
    shape = (batch_size, *sampling.latent_shapes[bucket])
    plan = StepPlan(
        photos=torch.tensor(photos),
        posterior_noise=torch.randn(shape, generator=numbers),
        noise=torch.randn(shape, generator=numbers),
        timesteps=torch.randint(0, 1000, (batch_size,), generator=numbers),
        views=torch.randint(0, sampling.views, (batch_size,), generator=numbers),
        undropped=torch.rand((batch_size,), generator=numbers) >= sampling.caption_dropout,
        wordings=torch.rand((batch_size,), generator=generator(seed, "wording", sampling.concept, step)),
    )
    if sampling.noise_offset:
        # Guttenberg 2023, "Diffusion with offset noise": a constant per channel added to the noise.
        plan.noise.add_(torch.randn((batch_size, 4, 1, 1), generator=numbers), alpha=sampling.noise_offset)
    return bucket, plan
