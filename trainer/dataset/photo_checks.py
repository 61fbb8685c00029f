"""What may be wrong with one photo file: whether it can be read, its size, its sharpness. Plain data, no torch."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..run.messages import Message, UserError
from .photos import read_photo

BLUR_WIDTH = 9
"""Pixels over which `blurriness` blurs once more."""
BLURRY = 0.45
"""`blurriness` above which a photo is called so. 18 good photos have 0.03 to 0.13; blurred by two pixels, 0.39 to 0.59."""

SAME_COLOUR = 4
"""Steps of 255 that a JPEG of one colour may vary by."""


@dataclass(frozen=True)
class PhotoCheck:
    """What is known of one photo file."""

    width: int = 0
    """Pixels, upright."""
    height: int = 0
    sha256: str = ""
    """Of the file's bytes, as hex."""
    blurriness: float = 0.0
    """From 0 (sharp) to 1."""
    blank: bool = False
    """Whether it shows nothing; see `is_blank`."""
    notes: tuple[Message, ...] = ()
    """What the user should know of the file."""
    problem: Message | None = None
    """Why it cannot be read; the other fields have their defaults then."""


def check_photo(path: Path) -> PhotoCheck:
    """Return what is known of a photo file; it is read again only after it has changed. Raises OSError when it is gone."""
    status = path.stat()
    return _check_photo(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2000)
def _check_photo(path: Path, modified: int, size: int) -> PhotoCheck:  # modified and size: a changed file is another one
    try:
        photo = read_photo(path)
    except UserError as error:
        return PhotoCheck(problem=error.message)
    image = photo.image
    return PhotoCheck(image.width, image.height, photo.sha256, blurriness(image), is_blank(image), photo.notes)


def is_blank(image: Image.Image) -> bool:
    """Return whether an RGB picture is of one colour, as one is that was all transparent."""
    extrema: Any = image.getextrema()  # a pair a band
    return all(high - low <= SAME_COLOUR for low, high in extrema)


def blurriness(image: Image.Image) -> float:
    """Return how blurred a picture is, from 0 (sharp) to 1.

    It is the share of the squared differences between neighbours, at 512 pixels, that survives another blur; what is sharp
    loses most of them (after Crete et al. 2007, "The Blur Effect"; squared, so that edges count more than soft shades). The
    greater of the shares along rows and along columns counts.
    """
    grey = image.convert("L")
    grey.thumbnail((512, 512))
    pixels = np.asarray(grey, dtype=np.float32)
    shares = []
    for lines in (pixels, pixels.T):
        sums = np.cumsum(np.pad(lines, ((0, 0), (BLUR_WIDTH // 2 + 1, BLUR_WIDTH // 2)), mode="edge"), axis=1)
        blurred = (sums[:, BLUR_WIDTH:] - sums[:, :-BLUR_WIDTH]) / BLUR_WIDTH
        before, after = np.diff(lines, axis=1) ** 2, np.diff(blurred, axis=1) ** 2
        shares.append(float(np.minimum(before, after).sum() / max(before.sum(), 1e-6)))
    return max(shares)
