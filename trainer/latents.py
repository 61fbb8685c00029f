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
from .photos import Dataset, decode_photo, prepare


@dataclass(frozen=True)
class LatentCache:
    """Posterior of each photo, in the dataset's order."""

    mean: Tensor
    """(N, 4, h/8, w/8) fp32."""
    std: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(4, h/8, w/8)."""
        return tuple(self.mean.shape[1:])

    def sample(self, indices: Tensor, posterior_noise: Tensor) -> Tensor:
        """Latents (B, 4, h/8, w/8) of the photos at `indices` (B,), scaled for the U-Net."""
        return (self.mean[indices] + self.std[indices] * posterior_noise) * LATENT_FACTOR


def to_tensor(photo: Image.Image) -> Tensor:
    """RGB photo of W x H pixels -> fp32 (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float().div(127.5).sub(1.0)


@torch.no_grad()
def encode_photos(vae: AutoencoderKL, dataset: Dataset, reporter: Reporter, stop: StopRequest) -> LatentCache:
    """Encode every photo in fp32 (fp16 overflows in SD v1.5's VAE). Raises ValueError for a photo that changed or a NaN."""
    means, stds = [], []
    for done, photo in enumerate(dataset.photos, 1):
        stop.check()
        path = Path(photo.path)
        try:
            raw = path.read_bytes()
        except OSError:
            raw = b""
        if hashlib.sha256(raw).hexdigest() != photo.sha256:
            raise ValueError(f"{path.name} was changed or removed after the dataset was loaded. Queue the graph again.")
        pixels = to_tensor(prepare(decode_photo(raw), dataset.resolution, dataset.crop))
        posterior = vae.encode(pixels[None].to(vae.device)).latent_dist
        if not (posterior.mean.isfinite().all() and posterior.std.isfinite().all()):
            raise ValueError(f"The VAE gives no usable latents for {path.name} (NaN). Use another VAE.")
        means.append(posterior.mean)
        stds.append(posterior.std)
        reporter.step(done, len(dataset.photos))
    return LatentCache(torch.cat(means), torch.cat(stds))
