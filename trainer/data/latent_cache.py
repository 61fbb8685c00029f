"""Encodes the photos by the VAE, once: mean and standard deviation, so that every step can draw its own sample."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..dataset.decode import decode_photo
from ..dataset.masks import decode_mask
from ..dataset.photos import Dataset, Photo
from ..models.sd15 import LATENT_FACTOR
from ..run.events import Reporter
from ..run.memory_errors import out_of_memory
from ..run.messages import UserError
from ..run.stop_request import StopRequest
from .batches import to_device
from .disk_cache import DiskCache
from .latent_store import LatentStore

PIXELS_PER_LATENT = 8


@dataclass(frozen=True)
class LatentCache:
    """The posterior of every view of each photo, by bucket: photos of one size are in one tensor."""

    posteriors: tuple[Tensor, ...]
    """Per bucket (photos of the bucket, views, 2, 4, h, w) fp32, on the CPU: mean and standard deviation."""
    photos: tuple[tuple[int, ...], ...]
    """Per bucket the photos in it, in the dataset's order."""
    rows: Tensor
    """(N,) int64, on the CPU: where in its bucket each photo of the dataset is."""
    device: torch.device
    """Where the samples are wanted."""
    mask_weights: tuple[Tensor, ...] = ()
    """Per bucket (photos of the bucket, views, 1, h, w) fp32, on the CPU: how much each latent counts; none without masks."""

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Return (4, h, w) of each bucket."""
        return tuple((c, h, w) for *_, c, h, w in (posterior.shape for posterior in self.posteriors))

    def sample(self, bucket: int, photos: Tensor, views: Tensor, posterior_noise: Tensor) -> Tensor:
        """Return latents (B, 4, h, w) of these views (B,) of these photos (B,) of the bucket, scaled for the U-Net.

        `photos` and `views` on the CPU, `posterior_noise` (B, 4, h, w) on the device.
        """
        mean, std = to_device(self.posteriors[bucket][self.rows[photos], views], self.device).unbind(1)
        return (mean + std * posterior_noise) * LATENT_FACTOR

    def loss_weights(self, bucket: int, photos: Tensor, views: Tensor) -> Tensor | None:
        """Return how much each latent of these views of these photos counts, (B, 1, h, w) on the device; None: all alike."""
        return to_device(self.mask_weights[bucket][self.rows[photos], views], self.device) if self.mask_weights else None


def to_tensor(photo: Image.Image) -> Tensor:
    """Return an RGB photo of W x H pixels as fp32 (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float().div(127.5).sub(1.0)


def to_weights(mask: Image.Image, outside: float) -> Tensor:
    """Return how much each latent counts, (1, H / 8, W / 8) fp32: 1 within a mask (L, W x H), `outside` around it.

    A latent is 8 x 8 pixels, and counts by the share of them that the mask lets through.
    """
    share = avg_pool2d(torch.from_numpy(np.array(mask))[None].float() / 255, PIXELS_PER_LATENT)
    return outside + (1 - outside) * share


def read_file(path: Path, sha256: str) -> bytes:
    """Return the bytes of a file of the dataset. Raises UserError when it is not what it was."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        if out_of_memory(error):  # the file is as good as it was
            raise
        raw = b""
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise UserError("{name} was changed or removed after the dataset was loaded. Queue the graph again.", name=path.name)
    return raw


def photo_weights(dataset: Dataset, photo: Photo, size: tuple[int, int]) -> Tensor:
    """Return how much each latent of each view of a photo counts, (views, 1, h, w) fp32; `size` is that of a view."""
    mask = None
    if photo.mask:
        raw = read_file(Path(photo.mask), photo.mask_sha256)
        mask = decode_mask(raw, (photo.width, photo.height), photo.mask == photo.path)
    if mask is None:
        return torch.ones(dataset.views, 1, size[1] // PIXELS_PER_LATENT, size[0] // PIXELS_PER_LATENT)
    views = [dataset.mask_view(mask, photo, number) for number in range(dataset.views)]
    return torch.stack([to_weights(view, dataset.mask_weight) for view in views])


@torch.no_grad()
def encode(vae: AutoencoderKL, view: Image.Image, name: str) -> Tensor:
    """Return mean and standard deviation (2, 4, h, w) of a view, in fp32: fp16 overflows in SD v1.5's VAE.

    Raises UserError, with the photo's name, for a NaN.
    """
    output: Any = vae.encode(to_tensor(view)[None].to(vae.device))
    posterior = output.latent_dist
    if not (posterior.mean.isfinite().all() and posterior.std.isfinite().all()):
        raise UserError("The VAE gives no usable latents for {name} (NaN). Use another VAE.", name=name)
    return torch.stack((posterior.mean[0], posterior.std[0]))


def encode_photos(
    vae: AutoencoderKL, dataset: Dataset, folder: Path, store: LatentStore, reporter: Reporter, stop: StopRequest
) -> LatentCache:
    """Encode every view that is not in the store, and gather all in files below `folder`. Raises UserError as `encode` does.

    Also for a photo that changed.
    """
    sizes = [dataset.frame_size(photo) for photo in dataset.photos]
    buckets = sorted(set(sizes))
    caches = {size: DiskCache(folder) for size in buckets}
    mask_weights = {size: DiskCache(folder) for size in buckets} if dataset.masked else {}
    counts, rows = dict.fromkeys(buckets, 0), []
    for done, (photo, size) in enumerate(zip(dataset.photos, sizes, strict=True), 1):
        path = Path(photo.path)
        raw = read_file(path, photo.sha256)
        try:
            image = decode_photo(raw)
        except UserError as error:  # another Pillow than the host's, for example
            raise UserError("{name} cannot be read: {reason}", name=path.name, reason=error.message) from None
        encoded = []
        for number in range(dataset.views):
            stop.check()
            view = dataset.view(image, photo, number)
            encoded.append(store.posterior(view, partial(encode, vae, view, path.name)))
        rows.append(counts[size])
        counts[size] += 1
        caches[size].append(torch.stack(encoded))
        if dataset.masked:
            mask_weights[size].append(photo_weights(dataset, photo, size))
        reporter.progress(done, len(dataset.photos))
    return LatentCache(
        posteriors=tuple(caches[size].stack() for size in buckets),
        photos=tuple(tuple(i for i, s in enumerate(sizes) if s == size) for size in buckets),
        rows=torch.tensor(rows),
        device=vae.device,
        mask_weights=tuple(cache.stack() for cache in mask_weights.values()),
    )
