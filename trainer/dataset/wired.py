"""Pictures that come from the graph, as files of photos. Plain data, no torch."""

import numpy as np
from PIL import Image

from ..run.messages import UserError

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def wired_pixels(picture: np.ndarray, number: int) -> np.ndarray:
    """Return picture `number` (1, ...) of an IMAGE socket, (H, W) or (H, W, 1, 3 or 4) in [0, 1], as bytes (H, W, C).

    Raises UserError when it is no picture.
    """
    values = np.asarray(picture, dtype=np.float32)
    if values.ndim == 2 and values.shape[1] not in CHANNELS:  # such a one is a row of a picture that is no batch
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in CHANNELS or not values.size:
        raise UserError(
            "Picture {number} of those wired to images has the shape {shape}, not height x width x 1, 3 or 4. Wire an IMAGE.",
            number=number,
            shape="x".join(map(str, values.shape)),
        )
    if not np.isfinite(values).all():
        raise UserError(
            "Picture {number} of those wired to images has pixels that are no numbers (NaN). Look at the node that makes it.",
            number=number,
        )
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return pixels (H, W, 1, 3 or 4) as a picture; what is transparent in it is treated as in a photo's file."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
