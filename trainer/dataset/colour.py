"""The colours of a photo as sRGB, which is what Stable Diffusion learned from. Plain data, no torch."""

import io
from typing import Any

import numpy as np
from PIL import Image

from ..run.memory_errors import out_of_memory
from ..run.messages import Message, message

SAME = 2
"""A profile that moves no colour by more than so many of 255 steps is taken as sRGB, and the pixels stay as they are."""
_CUBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3, indexing="ij"), axis=-1).reshape(27, 27, 3).astype(np.uint8)


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


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the picture's colours as RGB in sRGB, or None when they are that already. Raises for an unusable profile."""
    from PIL import ImageCms  # here: a Pillow without littlecms lacks it

    source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
    if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and image.mode != "L"):
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
