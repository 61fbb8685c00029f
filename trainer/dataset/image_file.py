"""What a picture file is by its bytes, and its pixels apart from its metadata. Plain data, no torch.

Metadata of JPEG and PNG files never reach Pillow: what is damaged, or large, in them cannot cost the photo then.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..run.messages import UserError
from .tiff_file import full_size_first

PNG_MARK = b"\x89PNG\r\n\x1a\n"
ADOBE_RGB = b"Adobe RGB (1998)"
"""Stands for the profile of photos that say by EXIF alone that they are Adobe RGB."""
DISPLAY_P3 = b"Display P3"
"""Stands for the profile of pictures that name these colours by their codes alone (ITU-T H.273)."""
LARGEST_PROFILE = 16_000_000
"""Bytes of a colour profile, unpacked, up to which it is read."""
_BRANDS = (
    ("AVIF", (b"avif", b"avis")),
    ("HEIC", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")),
    ("raw", (b"crx ",)),
)
_MARKS = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", re.escape(PNG_MARK)),
    ("WEBP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM"),
    ("raw", rb"II\*\0....CR|IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW"),
    ("TIFF", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("PSD", rb"8BPS"),
    ("SVG", rb"\s*(<\?xml[^<]*)?<svg"),
)
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""How EXIF writes a whole number, by the type of the entry."""
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")
_TIFF_PIXELS = {
    *(
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        266,
        273,
        277,
        278,
        279,
        284,
        292,
        293,
        317,
        320,
        322,
        323,
        324,
        325,
        332,
        334,
        338,
        339,
    ),
    *(340, 341, 347, *range(512, 522), 529, 530, 531, 532),
}
"""The tags of a TIFF that say how its pixels are written."""
_TIFF_PROFILE, _TIFF_XMP = 34675, 700
_PNG_EXIF, _PNG_XMP = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
"""How texts in a PNG begin that programs without the chunk eXIf have written."""
_AVIF_EXIF = re.compile(rb"(infe.{8}(?:..)?)Exif", re.DOTALL)
_AVIF_HEADER = 65_536
"""Bytes in which an AVIF says of what it consists."""
_P3_CODES = b"\0\x0c\0\x0d"
"""Primaries 12 and transfer function 13: Display P3 with the curve of sRGB, in the box colr of an AVIF or HEIC."""
_SEGMENT = re.compile(rb"\xff[^\x00\xff\xd0-\xd8]")
"""The mark of a JPEG's segment, also between the pixels of its scans."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG's pixels, by its colour type."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row and their steps in the passes of an interlaced PNG."""


@dataclass(frozen=True)
class Parts:
    """A picture file in parts."""

    pixels: bytes
    """The file without its metadata."""
    orientation: int | None = None
    """By EXIF, 1 to 8; None where the decoder has to say it."""
    profile: bytes | None = None
    """The ICC profile, ADOBE_RGB or DISPLAY_P3, empty without one; None where the decoder has to say it."""
    animated: bool = False
    """Whether it is a PNG of several pictures, of which `pixels` has the first."""


def image_kind(raw: bytes) -> str:
    """Return the format of a picture by its first bytes, "raw" for a camera's own; empty when it is none that we know."""
    head = raw[:64]
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(64, *struct.unpack(">I", head[:4])), 4))}
        return next((kind for kind, known in _BRANDS if brands & {*known}), "")
    return next((kind for kind, mark in _MARKS if re.match(mark, head, re.DOTALL)), "")


def take_apart(kind: str, raw: bytes) -> Parts:
    """Return the parts of a picture file. Raises UserError, with the reason alone, for a damaged header."""
    if kind == "AVIF":  # what stands in its EXIF does not turn it, but must be whole for Pillow
        return Parts(_AVIF_EXIF.sub(rb"\1free", raw[:_AVIF_HEADER], count=1) + raw[_AVIF_HEADER:])
    part = {"JPEG": _jpeg_parts, "PNG": _png_parts, "TIFF": _tiff_parts}.get(kind, Parts)
    return part(raw)


def exif_orientation(exif: bytes) -> int:
    """Return how a picture lies by its EXIF data, 1 to 8; 1 (upright) for another value, 0 where they do not say it."""
    value = next((value for tag, value in _exif_entries(exif) if tag == 0x0112 and isinstance(value, int)), 0)
    return value if 0 <= value <= 8 else 1


def is_adobe_rgb(exif: bytes) -> bool:
    """Return whether EXIF data say that a camera has written Adobe RGB, which many do without a profile."""
    at: int | None = None
    for link in (0x8769, 0xA005):  # to the directory of EXIF, and in it to that of the interoperability rule
        at = next((value for tag, value in _exif_entries(exif, at) if tag == link and isinstance(value, int)), 0)
        if not at:
            return False
    return (0x0001, b"R03\0") in _exif_entries(exif, at)


def profile_without_icc(raw: bytes, exif: bytes) -> bytes:
    """Return ADOBE_RGB or DISPLAY_P3 where a WebP, AVIF or HEIC without an ICC profile says so, else nothing."""
    if is_adobe_rgb(exif):
        return ADOBE_RGB
    return DISPLAY_P3 if b"colrnclx" + _P3_CODES in raw[:_AVIF_HEADER] else b""


def _exif_entries(exif: bytes, start: int | None = None) -> Iterator[tuple[int, int | bytes]]:
    """Yield tag and value of a directory's entries, of the first one by default: integers as such, else four bytes.

    It ends where the data are damaged.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order and start is None:
            (start,) = struct.unpack_from(order + "I", tiff, 4)
        if order is None or start is None:
            return
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, place)
            (value,) = struct.unpack_from(order + _INTEGERS.get(kind, "4s"), tiff, place + 8)
            yield tag, value
    except struct.error:  # it ends too early, or points out of itself
        return


def xmp_orientation(xmp: bytes) -> int:
    """Return how a picture lies by its XMP data, 1 to 8; 1 where they do not say it."""
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def _jpeg_parts(raw: bytes) -> Parts:
    """Keep of a JPEG's segments those that say how its pixels are written: of the APPs, JFIF's and Adobe's."""
    kept, place, profile, exif, xmp = [raw[:2]], 2, {}, b"", b""
    while place + 4 <= len(raw) and raw[place : place + 2] != b"\xff\xda":  # SOS: the pixels follow
        marker, (length,) = raw[place + 1], struct.unpack_from(">H", raw, place + 2)
        if raw[place] != 0xFF or marker in (0x00, 0xFF):  # filling, or what a wrong length has left between segments
            place = raw.find(b"\xff", place + 1)
            if place < 0:
                raise UserError("damaged or not an image")
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without data
            place += 2
            continue
        if length < 2:
            break
        data = raw[place + 4 : place + 2 + length]
        if marker == 0xE1 and data.startswith(b"Exif\0"):
            exif += data[6:] if exif else data  # what has no room in a segment goes on in the next
        elif marker == 0xE1:
            xmp += data
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0"):
            profile[data[12:13]] = data[14:]
        jfif = marker == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 14
        adobe = marker == 0xEE and data.startswith(b"Adobe") and len(data) >= 12
        if jfif or adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(raw[place : place + 2 + length])
        place += 2 + length
    icc = b"".join(part for _, part in sorted(profile.items())) or (ADOBE_RGB if is_adobe_rgb(exif) else b"")
    return Parts(b"".join([*kept, raw[place:]]), exif_orientation(exif) or xmp_orientation(xmp), icc)


def jpeg_has_all_scans(jpeg: bytes) -> bool:
    """Return whether every coefficient of a progressive JPEG is sent to its last bit; of another, that is always so."""
    sent, components, place = set(), 0, 2
    while found := _SEGMENT.search(jpeg, place):
        start = found.end()
        length = int.from_bytes(jpeg[start : start + 2], "big")
        data = jpeg[start + 2 : start + length]
        if found[0] == b"\xff\xc2" and len(data) > 5:  # SOF2
            components = data[5]
        elif found[0] == b"\xff\xda" and data and len(data) >= 4 + 2 * data[0]:  # SOS
            first, last, bits = data[1 + 2 * data[0] : 4 + 2 * data[0]]
            if bits & 15 == 0:
                sent |= {(which, number) for which in data[1 : 1 + 2 * data[0] : 2] for number in range(first, last + 1)}
        place = start + max(length, 2)
    return not components or len(sent) == 64 * components


def _png_parts(raw: bytes) -> Parts:
    """Keep of a PNG's chunks those that say how its pixels are written."""
    kept, place, exif, texts, profile, pictures = [PNG_MARK], len(PNG_MARK), b"", {}, b"", 1
    while place + 8 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, place)
        data = raw[place + 8 : place + 8 + length]
        chunk = raw[place : place + 12 + length]
        if kind in (b"IHDR", b"PLTE", b"tRNS"):
            if chunk[8 + length :] != struct.pack(">I", zlib.crc32(kind + data)):
                raise UserError("damaged or not an image")
            kept.append(_key_in_8_bits(kept[1], data) if kind == b"tRNS" and len(kept) > 1 else chunk)
        elif kind in (b"IDAT", b"IEND"):
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = data
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith((_PNG_EXIF, _PNG_XMP)):
            texts[data.partition(b"\0")[0] + b"\0"] = _png_text(kind, data)
        elif kind == b"iCCP":
            profile = _unpacked(data.partition(b"\0")[2][1:])
        elif kind == b"cICP" and data[:2] == _P3_CODES[1::2]:
            profile = profile or DISPLAY_P3
        elif kind == b"acTL":
            pictures = int.from_bytes(data[:4], "big")
        if kind == b"IEND":
            break
        place += 12 + length
    exif = exif or _unwritten(texts.get(_PNG_EXIF, b""))
    orientation = exif_orientation(exif) or xmp_orientation(texts.get(_PNG_XMP, b""))
    return Parts(b"".join(kept), orientation, profile or (ADOBE_RGB if is_adobe_rgb(exif) else b""), animated=pictures > 1)


def _png_text(kind: bytes, data: bytes) -> bytes:
    """Return the text of a chunk tEXt, zTXt or iTXt."""
    text = data.partition(b"\0")[2]
    if kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        return _unpacked(text) if packed else text
    return _unpacked(text[1:]) if kind == b"zTXt" else text


def _unwritten(text: bytes) -> bytes:
    """Return the EXIF data that ImageMagick has written as text: a name, their length, and lines of hex digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _key_in_8_bits(header: bytes, data: bytes) -> bytes:
    """Return the chunk tRNS as Pillow compares it: with pixels that it has brought to 8 bits, but for grey ones of 16."""
    depth, colour = header[16:18]
    if colour == 2 and depth == 16 and len(data) == 6:
        data = bytes((0, data[0], 0, data[2], 0, data[4]))
    elif colour == 0 and depth < 8 and len(data) == 2:
        data = bytes((0, data[1] % 2**depth * 255 // (2**depth - 1)))
    return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))


def _tiff_parts(raw: bytes) -> Parts:
    """Keep of the directory of a TIFF's first page of full size the tags that say how its pixels are written."""
    thumbnail, raw = raw, full_size_first(raw)
    order = "<" if raw[:2] == b"II" else ">"
    try:
        mark, start = struct.unpack_from(order + "HI", raw, 2)
        (count,) = struct.unpack_from(order + "H", raw, start)
        entries = [raw[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
        following = raw[start + 2 + 12 * count : start + 6 + 12 * count]
        tags = [struct.unpack(order + "HHII", entry) for entry in entries]
    except struct.error:
        return Parts(raw)
    if mark != 42:  # BigTIFF
        return Parts(raw)
    profile, xmp = (
        next((raw[place : place + length] for tag, _, length, place in tags if tag == wanted), b"")
        for wanted in (_TIFF_PROFILE, _TIFF_XMP)
    )
    kept = [entry for entry, (tag, *_) in zip(entries, tags, strict=True) if tag in _TIFF_PIXELS]
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + following
    pixels = raw[:start] + directory + raw[start + len(directory) :]
    profile = profile[:LARGEST_PROFILE] or (ADOBE_RGB if is_adobe_rgb(raw) else b"")
    orientation = exif_orientation(raw) or exif_orientation(thumbnail) or xmp_orientation(xmp)
    return Parts(pixels, orientation, profile)


def _unpacked(packed: bytes) -> bytes:
    """Return what zlib packed, up to the LARGEST_PROFILE; what is damaged gives what is no profile."""
    try:
        return zlib.decompressobj().decompress(packed, LARGEST_PROFILE)
    except zlib.error:
        return b"damaged"


def png_is_whole(png: bytes) -> bool:
    """Return whether a PNG, as `take_apart` leaves it, holds every pixel. Raises zlib.error where these are damaged."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, len(PNG_MARK) + 8)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(max(0, -(-(width - x) // dx)), max(0, -(-(height - y) // dy))) for x, y, dx, dy in passes]
    wanted = sum(h * (1 + -(-w * _CHANNELS.get(colour, 4) * depth // 8)) for w, h in sizes if w)
    place, found, unpack = len(PNG_MARK), 0, zlib.decompressobj()
    while place + 8 <= len(png) and found < wanted:
        length, kind = struct.unpack_from(">I4s", png, place)
        packed = png[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        while packed and found < wanted:
            found += len(unpack.decompress(packed, 1 << 20))
            packed = unpack.unconsumed_tail
        place += 12 + length
    return found >= wanted
