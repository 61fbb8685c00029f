"""Masks of photos: white is the subject, black what is around it. Plain data, no torch."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageStat

from ..run.messages import UserError
from .crop import prepare
from .decode import decode
from .folder_files import FolderFiles, is_inside, same_name

SAME_SHAPE = 0.02
"""By which part the sides of a mask may be in another proportion than its photo's: scaled down, they are rounded."""
LONGEST_NAME = 128
"""Bytes of a photo's name that its wired mask is called after: a file system takes 255, some 143, and the mask's is longer."""
FAINT = 8
"""Steps of 255 from black, or from white, within which a mask tells nothing: what a soft one leaves that has found nothing."""
CUT_OFF = 0.1
"""A crop that leaves a smaller part of what a mask shows has cut the subject off."""
LABEL = "-masklabel"
"""How OneTrainer ends the name of a mask: a-masklabel.png is that of a.jpg."""


def mask_files(folder: Path, files: FolderFiles) -> dict[str, str]:
    """Return the file of the mask that lies beside a photo, by the names of those photos that have one."""
    masks = {same_name(Path(name).stem): name for name in files.companions if is_inside(folder, folder / name)}
    found = {photo: masks.get(same_name(Path(photo).stem + LABEL)) for photo in files.photos}
    return {photo: mask for photo, mask in found.items() if mask}


def mask_path(photo: Path, beside: str | None, wired: Path | None) -> Path:
    """Return where the mask of a photo would be: the one from the graph, else the file beside it, else the photo's own alpha."""
    if not wired:
        return photo.with_name(beside) if beside else photo
    name = os.fsencode(photo.name)
    return wired / f"{photo.name if len(name) <= LONGEST_NAME else hashlib.sha256(name).hexdigest()}.png"


def decode_mask(raw: bytes, size: tuple[int, int], is_alpha: bool) -> Image.Image | None:
    """Return the mask in a file's bytes as L, of the size of its photo; of the photo's own file, its alpha channel.

    None when it tells nothing: all white or all black but for FAINT, or no alpha. Raises UserError, with the reason alone, for no
    picture, and for one of another shape: that of a cropped or turned photo would lie beside the subject.
    """
    decoded = decode(raw)
    mask = decoded.alpha if is_alpha else decoded.image.convert("L")
    if mask is None:
        return None
    extrema: Any = mask.getextrema()
    darkest, brightest = extrema
    if brightest < FAINT or darkest > 255 - FAINT:
        return None
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > SAME_SHAPE:
        raise UserError(
            "a mask of {width}x{height} pixels for a photo of {photo_width}x{photo_height}: a mask must show the whole photo. Of "
            "cropped pictures, wire these pictures to images, too",
            width=mask.width,
            height=mask.height,
            photo_width=size[0],
            photo_height=size[1],
        )
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def is_cut_off(mask: Image.Image, resolution: int, crop: str) -> bool:
    """Return whether the crop leaves next to nothing of what the mask of a photo (L, of its size) shows."""
    seen = prepare(mask, resolution, crop)
    scale = (min if crop == "pad" else max)(seen.width / mask.width, seen.height / mask.height)
    return ImageStat.Stat(seen).sum[0] < CUT_OFF * scale**2 * ImageStat.Stat(mask).sum[0]


def wired_mask(values: np.ndarray, number: int) -> Image.Image:
    """Return mask `number` (1, ...) of a MASK socket, (H, W) in [0, 1], as L. Raises UserError when it is no mask."""
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise UserError(
            "Mask {number} of those wired to masks has the shape {shape}, or values that are no numbers. Wire a MASK.",
            number=number,
            shape="x".join(map(str, values.shape)),
        )
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))
