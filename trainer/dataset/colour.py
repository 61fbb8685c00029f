"""The colours of a photo as sRGB, which is what Stable Diffusion learned from. Plain data, no torch."""

import io
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..run.memory_errors import out_of_memory
from ..run.messages import Message, message
from .image_file import ADOBE_RGB

SAME = 2
"""A profile that moves no colour by more than so many of 255 steps is taken as sRGB, and the pixels stay as they are."""
_CUBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3, indexing="ij"), axis=-1).reshape(27, 27, 3).astype(np.uint8)


@cache
def adobe_rgb() -> bytes:
    """Return an ICC profile of Adobe RGB (1998): its primaries under the white of D50, and its gamma of 563/256."""
    points = {  # (IEC 61966-2-5, adapted by Bradford's matrix)
        b"wtpt": (0.96420, 1.00000, 0.82491),
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    tags = {name: b"XYZ \0\0\0\0" + _fixed(*point) for name, point in points.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0\0\0\0\1\x02\x33\0\0")
    tags |= {b"desc": b"desc\0\0\0\0\0\0\0\1" + bytes(79), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    white = _fixed(*points[b"wtpt"])
    size, version = start + len(body), 0x02100000
    return struct.pack(">I4xI12s12x4s28x12s48x", size, version, b"mntrRGB XYZ ", b"acsp", white) + table + body


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, Message | None]:
    """Return an L, RGB, RGBA or CMYK picture as RGB or RGBA in sRGB, and a note where its ICC profile is of no use.

    Without a profile, the picture is taken to be sRGB.
    """
    plain = image if image.mode == "RGBA" else image.convert("RGB")
    if not profile:
        return plain, None
    try:
        converted = _converted(image, profile)
    except Exception as error:  # whatever a damaged profile raises: it costs the profile, not the photo
        if out_of_memory(error):
            raise
        return plain, message("its colour profile is damaged, and was not used")
    if converted is None:
        return plain, None
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted, None


def _is_grey(image: Image.Image) -> bool:
    """Return whether an L, RGB or RGBA picture has shades of grey alone; many programs write these as RGB."""
    return image.mode == "L" or len({band.tobytes() for band in image.split()[:3]}) == 1


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the picture's colours as RGB in sRGB, or None when they are that already. Raises for an unusable profile."""
    from PIL import ImageCms  # here: a Pillow without littlecms lacks it

    source: Any = ImageCms.ImageCmsProfile(io.BytesIO(adobe_rgb() if profile == ADOBE_RGB else profile))
    space = source.profile.xcolor_space.strip()
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
    if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not _is_grey(image)):
        raise ValueError
    target = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)

    def convert(picture: Image.Image) -> Image.Image:
        result = ImageCms.applyTransform(picture, transform)
        assert result is not None  # it is not done in place
        return result

    probe = Image.fromarray(_CUBE).convert(mode)
    plain, found = (np.asarray(picture.convert("RGB"), dtype=int) for picture in (probe, convert(probe)))
    if found[0, 0].max() > 90 or found[-1, -1].min() < 200:  # black and white: no camera's profile moves them so far
        raise ValueError
    if np.abs(found - plain).max() <= SAME:
        return None
    return convert(image if image.mode == mode else image.convert(mode))
