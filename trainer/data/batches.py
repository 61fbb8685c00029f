"""Which photos, noise and timesteps a batch has: a pure function of (seed, index), so resuming needs no sampler state."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..models.sd15 import TRAIN_TIMESTEPS


@dataclass(frozen=True)
class BatchPlan:
    """One batch of B samples, on the CPU.

    Latents are drawn from the stored posterior at each step: hence the noise of two kinds.
    """

    photos: Tensor
    """(B,) int64: which photos; all of one bucket."""
    views: Tensor
    """(B,) int64: which view of each."""
    posterior_noise: Tensor
    """(B, 4, h, w) fp32: draws the latents from the VAE's posterior."""
    noise: Tensor
    """(B, 4, h, w) fp32: what is added and shall be predicted."""
    timesteps: Tensor
    """(B,) int64 in [0, 1000)."""
    keep_caption: Tensor
    """(B,) bool: False where the caption is left empty."""
    caption_choice: Tensor
    """(B,) fp32 in [0, 1): which of its captions, where a photo has several."""

    def shard(self, rank: int, world_size: int) -> "BatchPlan":
        """Return the part of one of several processes: B / world_size samples."""
        return BatchPlan(**{f.name: getattr(self, f.name).chunk(world_size)[rank] for f in fields(self)})

    def to(self, device: torch.device) -> "BatchPlan":
        """Return the same plan on the device."""
        return BatchPlan(**{name: to_device(tensor, device) for name, tensor in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class BatchSource:
    """What batches are drawn from."""

    concept: str
    """The dataset's name, one of those in concepts.py: each has random numbers of its own."""
    buckets: tuple[tuple[int, ...], ...]
    """Photos of each bucket, a photo as often as it is repeated."""
    latent_shapes: tuple[tuple[int, int, int], ...]
    """(4, h, w) of each bucket."""
    views: int = 1
    caption_dropout: float = 0.0
    noise_offset: float = 0.0


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the CPU tensor on the device, without waiting for it where possible: CUDA copies from pinned memory on its own."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def generator(*parts: int | str) -> torch.Generator:
    """Return random numbers that belong to this sequence of parts alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _shuffled(items: Sequence, *parts: int | str) -> list:
    return [items[i] for i in torch.randperm(len(items), generator=generator(*parts)).tolist()]


def batch_photos(seed: int, index: int, batch_size: int, source: BatchSource) -> tuple[int, list[int]]:
    """Return bucket and photos of a batch, which is of one bucket.

    Each bucket has an endless sequence of its own: epoch after epoch, each a fresh permutation of its photos, and batches run
    across the seams. A bucket has as large a share of the batches as of the photos, so that every photo is seen as often as it
    is repeated, whatever the buckets.
    """
    counts = tuple(len(photos) for photos in source.buckets)
    round_, position = divmod(index, sum(counts))
    order = _bucket_order(seed, round_, source.concept, counts)
    bucket = order[position]
    number = round_ * counts[bucket] + order[:position].count(bucket)  # of the bucket's batches
    photos = source.buckets[bucket]
    parts = (bucket,) if len(counts) > 1 else ()
    positions = range(number * batch_size, (number + 1) * batch_size)
    epochs = {p // len(photos) for p in positions}
    orders = {epoch: _shuffled(photos, seed, "order", source.concept, epoch, *parts) for epoch in epochs}
    return bucket, [orders[p // len(photos)][p % len(photos)] for p in positions]


@functools.lru_cache(maxsize=8)
def _bucket_order(seed: int, round_: int, concept: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return the buckets of a round of sum(counts) batches, bucket b in counts[b] of them.

    Stratified: the k-th of c batches of a bucket lies at random in the k-th of c equal parts of the round, so that a run that
    ends within it has seen the buckets evenly, too.
    """
    if len(counts) == 1:
        return (0,) * counts[0]
    times = []
    for bucket, count in enumerate(counts):
        offsets = torch.rand(count, dtype=torch.float64, generator=generator(seed, "batches", concept, round_, bucket))
        times += [((k + offset) / count, bucket) for k, offset in enumerate(offsets.tolist())]
    return tuple(bucket for _, bucket in sorted(times))


def plan_batch(seed: int, index: int, batch_size: int, source: BatchSource) -> tuple[int, BatchPlan]:
    """Return bucket and plan of batch `index` (0, 1, ...), drawn on the CPU, so that every device trains on the same numbers."""
    bucket, photos = batch_photos(seed, index, batch_size, source)
    numbers = generator(seed, "step", source.concept, index)
    shape = (batch_size, *source.latent_shapes[bucket])
    plan = BatchPlan(
        photos=torch.tensor(photos),
        posterior_noise=torch.randn(shape, generator=numbers),
        noise=torch.randn(shape, generator=numbers),
        timesteps=torch.randint(0, TRAIN_TIMESTEPS, (batch_size,), generator=numbers),
        views=torch.randint(0, source.views, (batch_size,), generator=numbers),
        keep_caption=torch.rand((batch_size,), generator=numbers) >= source.caption_dropout,
        caption_choice=torch.rand((batch_size,), generator=generator(seed, "wording", source.concept, index)),
    )
    if source.noise_offset:
        # Guttenberg 2023, "Diffusion with offset noise": a constant per channel added to the noise.
        plan.noise.add_(torch.randn((batch_size, 4, 1, 1), generator=numbers), alpha=source.noise_offset)
    return bucket, plan
