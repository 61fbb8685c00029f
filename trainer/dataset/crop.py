"""How a photo is cropped and scaled for training, and how augmented variants of it are made. Plain data, no torch."""

import math
import random

from PIL import Image, ImageEnhance, ImageOps

CROPS = ("center", "top", "pad", "bucket")
GRID = 64
"""Buckets have sides that are multiples of this many pixels: what SD v1.5's U-Net halves three times after the VAE's factor 8."""
WHITE = (255, 255, 255)


def frame_size(width: int, height: int, resolution: int, crop: str) -> tuple[int, int]:
    """Return width and height in pixels of what training sees of a photo of width x height pixels.

    bucket: for each width on the 64-pixel grid, up to twice the resolution, the largest height on it that keeps within
    resolution^2 pixels; of these sizes the one nearest in aspect ratio.
    """
    if crop != "bucket":
        return resolution, resolution
    longest = 2 * resolution
    widths = range(GRID, longest + 1, GRID)
    sizes = [(w, min(longest, resolution**2 // w // GRID * GRID)) for w in widths if resolution**2 // w >= GRID]
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: (round(abs(math.log(size[0] / size[1]) - wanted), 6), -size[0] * size[1]))


def is_small(width: int, height: int, resolution: int, crop: str) -> bool:
    """Return whether a photo of width x height pixels must be enlarged for what training sees of it."""
    frame = frame_size(width, height, resolution, crop)
    return width < frame[0] or height < frame[1]


def prepare(image: Image.Image, resolution: int, crop: str) -> Image.Image:
    """Return what training sees of a photo, never squashed.

    center, top: the shorter side fills the square, the rest is cut. pad: the whole photo on white. bucket: the photo keeps
    its shape as nearly as `frame_size` allows, the little that is left over is cut. A mask (L) is framed as its photo is; what
    is padded is not the subject.
    """
    size = frame_size(*image.size, resolution, crop)
    if crop == "pad":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=WHITE if image.mode == "RGB" else 0)
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS, centering=(0.5, 0.0 if crop == "top" else 0.5))


def augment(
    image: Image.Image, resolution: int, crop: str, *, view: float, color: float, light: float, rng: random.Random
) -> Image.Image:
    """Return a random variant of the prepared photo. `view`, `color` and `light` are strengths in [0, 0.5].

    view: each corner of the visible part moves inwards by up to this share of the side: another crop and viewpoint.
    color: saturation and the gain of each channel. light: brightness and contrast. The corners are drawn first, so that a mask
    without color and light is framed as its photo with them.
    """
    # The visible part is smaller by about half of what the corners may move: begin with so much more of the square.
    squared = view and crop != "bucket"
    framed = prepare(image, round(resolution / (1 - view / 2)) if squared else resolution, crop)
    if view:
        larger, size = framed, frame_size(*image.size, resolution, crop)
        x, y = larger.width * view / 2, larger.height * view / 2
        right, bottom = larger.size
        corners = [  # of the visible part, anticlockwise from the upper left, as QUAD wants them
            (rng.uniform(0, x), rng.uniform(0, y)),
            (rng.uniform(0, x), bottom - rng.uniform(0, y)),
            (right - rng.uniform(0, x), bottom - rng.uniform(0, y)),
            (right - rng.uniform(0, x), rng.uniform(0, y)),
        ]
        quad = [coordinate for corner in corners for coordinate in corner]
        framed = larger.transform(size, Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    if color:
        framed = ImageEnhance.Color(framed).enhance(rng.uniform(1 - color, 1 + color))
        gains = [rng.uniform(1 - color / 4, 1 + color / 4) for _ in range(3)]
        channels = [band.point([round(v * gain) for v in range(256)]) for band, gain in zip(framed.split(), gains, strict=True)]
        framed = Image.merge("RGB", channels)
    if light:
        framed = ImageEnhance.Brightness(framed).enhance(rng.uniform(1 - light, 1 + light))
        framed = ImageEnhance.Contrast(framed).enhance(rng.uniform(1 - light, 1 + light))
    return framed
