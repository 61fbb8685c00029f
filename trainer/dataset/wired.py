"""Pictures and captions that come from the graph. Plain data, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..run.messages import UserError
from .caption_files import CaptionSet
from .metadata_files import Caption
from .text_file import LINE_END, clean


@dataclass(frozen=True)
class Wired:
    """What of a dataset comes from the graph beside its photos."""

    captions: Sequence[str] | None = None
    """In the order of the photos."""
    masks: Path | None = None
    """Folder of the masks, where `mask_path` finds them."""


NOTHING_WIRED = Wired()
MAX_PREVIEWS = 100
"""So many prepared pictures are returned; those of a large folder would fill the memory."""
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def wired_pixels(picture: np.ndarray, number: int, name: str = "images") -> np.ndarray:
    """Return picture `number` (1, ...) of the IMAGE socket `name`, (H, W) or (H, W, 1, 3 or 4) in [0, 1], as bytes (H, W, C).

    Raises UserError when it is no picture.
    """
    values = np.asarray(picture, dtype=np.float32)
    if values.ndim == 2 and values.shape[1] not in CHANNELS:  # such a one is a row of a picture that is no batch
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in CHANNELS or not values.size:
        raise UserError(
            "Picture {number} of those wired to {name} has the shape {shape}, not height x width x 1, 3 or 4. Wire an IMAGE.",
            number=number,
            name=name,
            shape="x".join(map(str, values.shape)),
        )
    if not np.isfinite(values).all():
        raise UserError(
            "Picture {number} of those wired to {name} has pixels that are no numbers (NaN). Look at the node that makes it.",
            number=number,
            name=name,
        )
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return pixels (H, W, 1, 3 or 4) as a picture; what is transparent in it is treated as in a photo's file."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def check_one_for_each(name: str, count: int, photos: int) -> None:
    """Raise UserError unless as many captions or masks come through the socket `name`, called after them, as there are photos."""
    if count == MAX_PREVIEWS < photos:
        raise UserError(
            "{count} {name} come through {name}, and there are {photos} photos: IMAGE of Load Photos of a Subject has the first "
            "{count} alone. Make folders of at most {count} photos, or give the node that makes the {name} all photos from "
            "another loader.",
            count=count,
            name=name,
            photos=photos,
        )
    if count != photos:
        raise UserError(
            "{count} {name} come through {name}, and there are {photos} photos. Wire one for each, in the order of the photos: "
            "that of their names, or of the pictures wired to images.",
            count=count,
            name=name,
            photos=photos,
        )


def _lines(text: str, count: int) -> list[str]:
    """Return the lines of a text: `count`, counting the blank ones, else those that are not blank."""
    *lines, last = LINE_END.split(text)
    lines += [last] if last else []
    return lines if len(lines) == count else [line for line in lines if clean(line)]


def with_wired_captions(found: CaptionSet, texts: Sequence[str]) -> dict[str, Caption]:
    """Return the captions by photo, with a wired text where a photo has none, nor an empty file beside it.

    The texts are in the order of the photos, or one text with a line for each. Raises UserError when there are more or fewer.
    """
    captions = found.captions
    lines = _lines(texts[0], len(captions)) if len(texts) == 1 and len(captions) > 1 else texts
    check_one_for_each("captions", len(lines), len(captions))
    wired = {name: clean(text) for name, text in zip(captions, lines, strict=True)}
    return {
        name: caption if caption.texts or name in found.settled or not wired[name] else replace(caption, texts=(wired[name],))
        for name, caption in captions.items()
    }
