"""How the bytes of a photo file become pixels: the same in the host and in the worker. Plain data, no torch.

What comes of a file is a function of its bytes alone: not of Pillow's global switches, which other packs set.
"""

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..run.memory_errors import out_of_memory
from ..run.messages import Message, UserError, message
from .colour import to_srgb
from .image_file import (
    Parts,
    exif_orientation,
    image_kind,
    jpeg_has_all_scans,
    png_is_whole,
    profile_without_icc,
    take_apart,
    xmp_orientation,
)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIC")
"""Nothing else, whatever a file is called: some of Pillow's readers start other programs."""
MAX_PIXELS = 100_000_000
"""A larger photo is scaled down to at most so many pixels."""
MEMORY = 800_000_000
"""Bytes that decoding a photo may take before that."""
MOST_PIXELS_OF_JPEG = 500_000_000
"""A JPEG is scaled down while it is read, so that its memory does not bound it; its time does."""
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
"""TIFF's tags."""
_JPEG_END = b"\xff\xd9"
_NOISE = bytes(1 + (167 * place + 89) % 254 for place in range(254))
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of a photo file."""

    image: Image.Image
    """RGB, upright."""
    notes: tuple[Message, ...] = ()
    """What the user should know of the file."""
    alpha: Image.Image | None = None
    """L, upright: what the file calls opaque, where it has transparency."""


class _CutError(OSError):
    """The file ends before its pixels do."""


class _File(io.BytesIO):
    """Says by itself that the file has ended: whether Pillow does depends on a switch that other packs set."""

    loading = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes. Raises _CutError while pixels are loaded and there are none."""
        data = super().read(size)
        if self.loading and not data and size:
            raise _CutError
        return data


def decode_photo(raw: bytes) -> Image.Image:
    """Return the photo in a file's bytes, as `decode` does."""
    return decode(raw).image


def decode(raw: bytes) -> Decoded:
    """Return the photo in a file's bytes: upright, as RGB in sRGB, transparency over white, 16 bits scaled to 8.

    Raises UserError, with the reason alone, when it cannot be read, and what says that memory ran out.
    """
    if not raw:
        raise UserError("empty file")
    kind = image_kind(raw)
    try:
        if kind == "HEIC":
            return _decode_heic(raw)
        if kind not in FORMATS:
            raise UserError(unreadable(kind).template, **unreadable(kind).values)
        return _decode(kind, take_apart(kind, raw))
    except UserError:
        raise
    except _CutError:
        raise UserError("damaged: it ends before its pixels do") from None
    except Image.DecompressionBombError:  # some of Pillow's readers ask for themselves
        raise UserError("more than {most} megapixels", most=2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS) // 10**6) from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes their code raise
        if out_of_memory(error):  # the photo may be as good as any
            raise
        raise UserError("damaged: {reason}", reason=str(error) or type(error).__name__) from None


def unreadable(kind: str) -> Message:
    """Return why a file of this format (see `image_kind`) is not read."""
    if kind == "raw":
        return message("a camera's raw file: develop it to jpg first")
    return message("{format} is not read here", format=kind) if kind else message("damaged or not an image")


def _decode(kind: str, parts: Parts) -> Decoded:
    image = _open(kind, parts.pixels)
    notes: list[Message] = []
    if parts.animated or _is_animated(image):
        notes.append(message("only the first of its pictures is used"))
    size = image.size
    factor = _reduction(kind, image)
    if not (png_is_whole(parts.pixels) if kind == "PNG" else kind != "JPEG" or _jpeg_is_written(parts.pixels)):
        raise _CutError
    try:
        _load(image, factor)
    except _CutError:
        if kind != "JPEG":
            raise
        image = _jpeg_without_end(parts.pixels, factor)
        notes.append(message("its last bytes are missing, but no pixel"))
    # A program may have closed half a file: its last rows are flat then, or, of a progressive one, scans are missing.
    if kind == "JPEG" and (image.info.get("progressive") or _ends_flat(image)):
        _jpeg_without_end(_before_end(parts.pixels), factor)
    orientation = _orientation(kind, image) if parts.orientation is None else parts.orientation
    profile = _profile(image, parts.pixels) if parts.profile is None else parts.profile
    return _finished(image, factor, size, profile, orientation, notes)


def _profile(image: Image.Image, raw: bytes) -> bytes:
    """Return the ICC profile that a decoder has found, or what stands for one; empty without either."""
    return image.info.get("icc_profile") or profile_without_icc(raw, _exif(image))


def _exif(image: Image.Image) -> bytes:
    exif = image.info.get("exif")
    return exif if isinstance(exif, bytes) else b""


def _finished(
    image: Image.Image, factor: int, size: tuple[int, int], profile: bytes, orientation: int, notes: list[Message]
) -> Decoded:
    """Return the loaded picture as training sees it; `size` was its size in the file, `factor` what it is scaled down by."""
    image = _plain(image)
    if factor > 1:
        if image.size == size:
            image = image.reduce(factor)
        notes.append(message("scaled down from {width}x{height} pixels", width=size[0], height=size[1]))
    image, note = to_srgb(image, profile)
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    if orientation in _TRANSPOSE:
        image, alpha = image.transpose(_TRANSPOSE[orientation]), alpha and alpha.transpose(_TRANSPOSE[orientation])
    return Decoded(image, (*notes, note) if note else tuple(notes), alpha)


def _open(kind: str, data: bytes) -> Image.Image:
    """Return the picture, not yet loaded. Raises UserError when it cannot be one."""
    Image.init()
    if kind not in Image.OPEN:  # AVIF, before Pillow 11.3
        raise UserError("{format} is not read here", format=kind)
    try:
        return Image.OPEN[kind][0](_File(data), "")  # not Image.open: its limit of pixels can be set by any other pack
    except Exception as error:
        if out_of_memory(error) or isinstance(error, Image.DecompressionBombError):
            raise
        raise UserError("damaged, or a kind of {format} that is not read here", format=kind) from None


def _load(image: Any, factor: int) -> None:
    """Load the pixels, of a JPEG reduced by the factor. Raises _CutError when the file ends before they do."""
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))
    if isinstance(image.fp, _File) and image.format != "PNG":  # that one is counted, and may lack its last bytes
        image.fp.loading = True
    image.load()


def _jpeg_without_end(data: bytes, factor: int) -> Image.Image:
    """Return the picture of a JPEG that lacks its end mark. Raises _CutError when pixels are missing, too.

    Missing pixels are filled in by the decoder without a word. So it is given other ends, too: where the pixels depend on what
    follows the file's last byte, some of them were to come from there.
    """
    if not jpeg_has_all_scans(data):
        raise _CutError
    data = data.removesuffix(b"\xff")  # half of the mark
    marks = _RESTART.findall(data)  # where the decoder begins anew: it waits for the one after the last
    after = marks[-1][0] - 0xD0 + 1 if marks else 0
    image = None
    for noise in (b"", _NOISE, _NOISE[::-1]):
        more = [b"\xff" + bytes([0xD0 + (after + place) % 8]) + noise for place in range(8)] if noise else []
        loaded = _open("JPEG", b"".join((data, noise, *more, _JPEG_END)))
        _load(loaded, factor)
        if image and image.tobytes() != loaded.tobytes():
            raise _CutError
        image = image or loaded
    assert image is not None
    return image


def _ends_flat(image: Image.Image) -> bool:
    """Return whether the last row of pixels has one colour: what the decoder fills in, or a plain border."""
    colours = image.crop((0, image.height - 1, *image.size)).getcolors(1)
    return colours is not None


def _before_end(data: bytes) -> bytes:
    """Return a JPEG up to its end mark: all of it where it has none."""
    end = data.find(_JPEG_END, max(0, data.find(b"\xff\xda")))  # the first behind a start of pixels, which cannot hold it
    return data if end < 0 else data[:end]


def _jpeg_is_written(data: bytes) -> bool:
    """Return whether a JPEG does not end in zeros instead of its end mark: the place reserved for an unfinished download."""
    return not data.endswith(bytes(16)) or len(_before_end(data)) < len(data)


def _reduction(kind: str, image: Image.Image) -> int:
    """Return by which factor to scale a picture down, by its header. Raises UserError when that would take too much memory."""
    pixels = image.width * image.height
    if pixels <= MAX_PIXELS:
        return 1
    factor = next((f for f in (2, 4, 8) if pixels <= MAX_PIXELS * f**2), 0)
    most = MEMORY // 4
    if kind == "JPEG":  # a progressive one is held as coefficients, two bytes each
        most = MEMORY // 7 if image.info.get("progressive") else MOST_PIXELS_OF_JPEG
    if pixels > most or not factor:
        raise UserError("more than {most} megapixels", most=most // 10**6)
    return factor


def _is_animated(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception as error:  # it looks for the second picture, which may be damaged
        if out_of_memory(error):
            raise
        return False


def _orientation(kind: str, image: Image.Image) -> int:
    """Return the orientation that Pillow found, 1 to 8; it has made TIFFs upright itself."""
    if kind == "TIFF":
        return 1
    xmp = image.info.get("xmp", b"")
    return exif_orientation(_exif(image)) or (xmp_orientation(xmp) if isinstance(xmp, bytes) else 1)


def _plain(image: Image.Image) -> Image.Image:
    """Return the loaded picture as L, RGB, RGBA or CMYK. Raises UserError for brightness without a white."""
    if image.mode.startswith("I"):  # greyscale, 9 to 16 bits a pixel
        tags = getattr(image, "tag_v2", {})
        bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
        if bits > 16:
            raise UserError("its brightness is written as {kind}, which has no fixed white", kind=f"int{bits}")
        pixels = np.asarray(image, dtype=np.float32) * (255 / (2**bits - 1))
        if tags.get(_PHOTOMETRIC) == 0:  # 0 is white: Pillow inverts what has up to 8 bits alone
            pixels = 255 - pixels
        grey = Image.fromarray((np.clip(pixels, 0, 255) + 0.5).astype(np.uint8))
        key = image.info.get("transparency")  # Pillow leaves it out of pictures of this kind
        if not isinstance(key, int):
            return grey
        return Image.merge("RGBA", (grey, grey, grey, Image.fromarray((np.asarray(image) != key).astype(np.uint8) * 255)))
    if image.mode == "F":
        raise UserError("its brightness is written as {kind}, which has no fixed white", kind="float32")
    if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        return image.convert("RGB")  # of many programs' files, the fourth byte means nothing
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _decode_heic(raw: bytes) -> Decoded:
    """Decode a phone's photo, where pillow-heif is installed. It is asked directly, not made known to all of ComfyUI."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("HEIC, which needs the package pillow-heif in ComfyUI's Python") from None
    heif = pillow_heif.open_heif(raw)
    pixels = heif.size[0] * heif.size[1]
    if pixels > MEMORY // 4:
        raise UserError("more than {most} megapixels", most=MEMORY // 4 // 10**6)
    factor = 1 if pixels <= MAX_PIXELS else 2
    image = heif.to_pillow()  # upright already
    return _finished(image, factor, image.size, _profile(image, raw), 1, [])
