"""Whether the VAE is SDXL's, which has the same tensors as SD v1.5's and other latents: told by the photos themselves."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dataset.decode import decode_photo
from ..dataset.photos import Dataset
from .latent_cache import LatentCache, to_tensor

# How a latent's four numbers give a pixel's colour, roughly: the least squares that ComfyUI draws its previews with
# (comfy/latent_formats.py). Each was fitted to the latents of its own VAE, so none explains the colours of these better.
SD15_COLOURS = ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177))
SDXL_COLOURS = ((0.3651, 0.4232, 0.4341), (-0.2533, -0.0042, 0.1068), (0.1076, 0.1111, -0.0362), (-0.3165, -0.2492, -0.2188))

OPPONENTS = ((1 / 3, 1 / 3, 1 / 3), (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0))
"""Brightness, red against green, blue against both: brightness alone, most of a photo, is found in any latents."""

MAX_PHOTOS = 8
FEWEST_PIXELS = 256
"""Latents in all, below which nothing is said: a photo of 128 x 128 pixels has so many."""
LEAST_CONTRAST = 0.03
"""Standard deviation of each opponent, colours being in [-1, 1], below which nothing is said: single-coloured or grey photos."""
LEAST_CORRELATION = 0.6
"""Of each opponent with what SDXL's factors make of the latents."""
CLEARLY = 0.5
"""SDXL's factors must leave less than this share of the variance that SD v1.5's leave."""


def is_sdxl_vae(pictures: Sequence[Tensor], means: Sequence[Tensor]) -> bool:
    """Return whether the latents, means (4, h, w), of pictures (3, 8h, 8w) in [-1, 1] are clearly those of SDXL's VAE.

    The scale of the latents does not decide: it goes with the contrast of the photos. SDXL's own way from latents to colours must
    fit, in brightness and in both colours, and leave at most half of what SD v1.5's leaves. For SD v1.5's VAE and its fine-tuned
    kin the second cannot be: for them, their own factors are the best there are. An unknown VAE fits neither.
    """
    colours = torch.cat([F.avg_pool2d(picture, 8).flatten(1) for picture in pictures], dim=1)  # (3, P)
    latents = torch.cat([mean.flatten(1) for mean in means], dim=1)  # (4, P)
    opponents = torch.tensor(OPPONENTS) @ colours
    if colours.shape[1] < FEWEST_PIXELS or opponents.std(dim=1).min() < LEAST_CONTRAST:
        return False
    sd15, sdxl = (_correlations(opponents, latents, factors) for factors in (SD15_COLOURS, SDXL_COLOURS))
    left, left_by_sd15 = (1 - (found.clamp(min=0) ** 2).mean() for found in (sdxl, sd15))
    return bool(sdxl.min() > LEAST_CORRELATION and left < CLEARLY * left_by_sd15)


def _correlations(opponents: Tensor, latents: Tensor, factors: Sequence[Sequence[float]]) -> Tensor:
    """Return (3,): how each opponent (3, P) goes along with what the factors make of the latents (4, P)."""
    predicted = torch.tensor(OPPONENTS) @ torch.tensor(factors).T @ latents
    return torch.corrcoef(torch.cat((opponents, predicted)).double())[:3, 3:].diagonal().nan_to_num()


def looks_like_sdxl(dataset: Dataset, latents: LatentCache) -> bool:
    """Return whether the VAE that has encoded the dataset is clearly SDXL's, by its first photos."""
    pictures, means = [], []
    for bucket, photos in enumerate(latents.photos):
        for photo in photos:
            if photo < MAX_PHOTOS:
                given = dataset.photos[photo]
                pictures.append(to_tensor(dataset.view(decode_photo(Path(given.path).read_bytes()), given, 0)))
                means.append(latents.posteriors[bucket][latents.rows[photo], 0, 0])
    return is_sdxl_vae(pictures, means)
