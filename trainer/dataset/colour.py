"""The colours of a photo as sRGB, which is what Stable Diffusion learned from. Plain data, no torch."""

import io
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..run.memory_errors import out_of_memory
from ..run.messages import Message, message
from .image_file import ADOBE_RGB, DISPLAY_P3

SAME = 2
"""A profile that moves no colour by more than so many of 255 steps is taken as sRGB, and the pixels stay as they are."""
_CUBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3, indexing="ij"), axis=-1).reshape(27, 27, 3).astype(np.uint8)


_D50 = (0.96420, 1.00000, 0.82491)
_BUILT_IN = {  # primaries, adapted by Bradford's matrix to the white of D50
    ADOBE_RGB: ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),  # IEC 61966-2-5
    DISPLAY_P3: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),  # SMPTE EG 432-1
}


@cache
def built_in(name: bytes) -> bytes:
    """Return an ICC profile of ADOBE_RGB, with its gamma of 563/256, or of DISPLAY_P3, with the curve of sRGB."""
    tags = {
        tag: b"XYZ \0\0\0\0" + _fixed(*point)
        for tag, point in zip((b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ"), (_D50, *_BUILT_IN[name]), strict=True)
    }
    curve = b"curv\0\0\0\0\0\0\0\1\x02\x33\0\0"
    if name == DISPLAY_P3:
        curve = b"para\0\0\0\0\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags |= {b"desc": b"desc\0\0\0\0\0\0\0\1" + bytes(79), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size, version = start + len(body), 0x02100000
    return struct.pack(">I4xI12s12x4s28x12s48x", size, version, b"mntrRGB XYZ ", b"acsp", _fixed(*_D50)) + table + body


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

    source: Any = ImageCms.ImageCmsProfile(io.BytesIO(built_in(profile) if profile in _BUILT_IN else profile))
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
