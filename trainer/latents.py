"""The photos as the VAE sees them, encoded once: mean and deviation, so that every step can draw its own sample."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from .base_model import LATENT_FACTOR
from .events import Reporter, StopRequest
from .photos import Dataset, decode_photo
from .plan import to_device
from .spill import Spill


@dataclass(frozen=True)
class LatentCache:
    """Posterior of every view of each photo, by bucket: photos of one size are in one tensor."""

    posteriors: tuple[Tensor, ...]
    """Per bucket (photos of the bucket, views, 2, 4, h, w) fp32, on the CPU: mean and standard deviation."""
    photos: tuple[tuple[int, ...], ...]
    """Per bucket the photos in it, in the dataset's order."""
    rows: Tensor
    """(N,) int64, on the CPU: where in its bucket each photo of the dataset is."""
    device: torch.device
    """Where the samples are wanted."""

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(4, h, w) of each bucket."""
        return tuple(tuple(posterior.shape[3:]) for posterior in self.posteriors)

    def sample(self, bucket: int, photos: Tensor, views: Tensor, posterior_noise: Tensor) -> Tensor:
        """Latents (B, 4, h, w) of these views (B,) of these photos (B,) of the bucket, scaled for the U-Net.

        `photos` and `views` on the CPU, `posterior_noise` (B, 4, h, w) on the device.
        """
        mean, std = to_device(self.posteriors[bucket][self.rows[photos], views], self.device).unbind(1)
        return (mean + std * posterior_noise) * LATENT_FACTOR


def to_tensor(photo: Image.Image) -> Tensor:
    """RGB photo of W x H pixels -> fp32 (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float().div(127.5).sub(1.0)


@torch.no_grad()
def encode_photos(vae: AutoencoderKL, dataset: Dataset, folder: Path, reporter: Reporter, stop: StopRequest) -> LatentCache:
    """Encode every view in fp32 (fp16 overflows in SD v1.5's VAE), to files below `folder`.

    Raises ValueError for a photo that changed or a NaN.
    """
    sizes = [dataset.frame_size(photo) for photo in dataset.photos]
    buckets = sorted(set(sizes))
    spills = {size: Spill(folder) for size in buckets}
    counts, rows = dict.fromkeys(buckets, 0), []
    for done, (photo, size) in enumerate(zip(dataset.photos, sizes, strict=True), 1):
        path = Path(photo.path)
        try:
            raw = path.read_bytes()
        except OSError:
            raw = b""
        if hashlib.sha256(raw).hexdigest() != photo.sha256:
            raise ValueError(f"{path.name} was changed or removed after the dataset was loaded. Queue the graph again.")
        image = decode_photo(raw)
        encoded = []
        for number in range(dataset.views):
            stop.check()
            pixels = to_tensor(dataset.view(image, photo, number))
            posterior = vae.encode(pixels[None].to(vae.device)).latent_dist
            if not (posterior.mean.isfinite().all() and posterior.std.isfinite().all()):
                raise ValueError(f"The VAE gives no usable latents for {path.name} (NaN). Use another VAE.")
            encoded.append(torch.stack((posterior.mean[0], posterior.std[0])))
        rows.append(counts[size])
        counts[size] += 1
        spills[size].append(torch.stack(encoded))
        reporter.step(done, len(dataset.photos))
    return LatentCache(
        posteriors=tuple(spills[size].stack() for size in buckets),
        photos=tuple(tuple(i for i, s in enumerate(sizes) if s == size) for size in buckets),
        rows=torch.tensor(rows),
        device=vae.device,
    )
