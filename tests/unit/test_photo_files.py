"""What becomes of a photo's file, whatever is odd about it: its pixels, or a sentence."""

import io
import random
import struct
import sys
import zlib
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

from tests import icc
from trainer.dataset import colour
from trainer.dataset import decode as decode_module
from trainer.dataset.colour import to_srgb
from trainer.dataset.decode import decode, decode_photo
from trainer.dataset.folder import read_folder
from trainer.dataset.image_file import image_kind
from trainer.run.messages import UserError

SIZE = (48, 32)
TIFF_TYPES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 99, 65535)


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth colours with a dark corner, so that it shows which way is up."""
    x, y = np.meshgrid(np.linspace(40, 255, size[0]), np.linspace(40, 255, size[1]))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))
    return image.convert(mode)


def noise(size: tuple[int, int] = (160, 120)) -> Image.Image:
    """As lively as a photo: a JPEG of it has pixels in each of its bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(*entries: bytes, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HIH", 42, 8, len(entries)) + b"".join(entries) + bytes(4)


def entry(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def lying(order: str = "<") -> bytes:
    return entry(0x0112, 3, 1, struct.pack(f"{order}H", 6), order)


def with_exif(kind: str, data: bytes) -> bytes:
    """A picture that lies on its side, with these EXIF data."""
    image = picture().transpose(Image.Transpose.ROTATE_90)
    if kind == "PNG":
        return with_chunk(encoded(image, "PNG"), b"eXIf", data)
    raw = encoded(image, kind, quality=90)
    if kind == "JPEG":
        return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data + raw[2:]
    return encoded(image, kind, quality=90, exif=b"Exif\0\0" + data)


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """The PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def is_upright(image: Image.Image) -> bool:
    return image.size == SIZE and sum(image.getpixel((2, 2))) < sum(image.getpixel((45, 29)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_no_exif_entry_of_any_tag_and_type_costs_the_photo_or_its_orientation(kind, order):
    tags = [*(tag.value for tag in ExifTags.Base), 0, 1, 0xFFFF]
    tried = 0
    for tag in tags:
        if tag == 0x0112:
            continue
        for number, kind_of_value in enumerate(TIFF_TYPES):
            values = (b"560\0", b"\xff\xff\xff\xff", b"\0\0\0\0")
            odd = entry(tag, kind_of_value, (4, 0xFFFFFFFF, 0)[number % 3], values[(tag + number) % 3], order)
            entries = (odd, lying(order)) if tag % 2 else (lying(order), odd)
            assert is_upright(decode_photo(with_exif(kind, exif(*entries, order=order)))), (tag, kind_of_value)
            tried += 1
    assert tried > 4000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_of_any_bytes_costs_the_orientation_at_most(kind):
    rng, good = random.Random(1), exif(entry(0x0100, 2, 4, b"560"), lying(), entry(0x8769, 4, 1, b"\x1a"))
    assert is_upright(decode_photo(with_exif(kind, good)))
    for _ in range(600):
        data = bytearray(good)
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.choice((0, 0xFF, rng.randrange(256)))
        data = bytes(data[: rng.randrange(8, len(data))] if rng.random() < 0.3 else data)
        assert set(decode_photo(with_exif(kind, data)).size) == set(SIZE)


def test_no_entry_of_a_tiff_that_is_not_about_its_pixels_costs_the_photo():
    image = picture().transpose(Image.Transpose.ROTATE_90)
    raw = encoded(image, "TIFF")
    start = struct.unpack_from("<I", raw, 4)[0]
    count = struct.unpack_from("<H", raw, start)[0]
    entries = raw[start + 2 : start + 2 + 12 * count]
    about = (
        {struct.unpack_from("<H", entries, 12 * place)[0] for place in range(count)} | set(range(254, 350)) | {*range(512, 533)}
    )
    for tag in sorted({*(tag.value for tag in ExifTags.Base), 0x8769, 0x8825, 0xA005, 0x014A} - about - {0x0112}):
        for kind in TIFF_TYPES:
            odd = entry(tag, kind, 0xFFFFFF, b"\xff\xff\0\0")
            directory = struct.pack("<H", count + 2) + entries + lying() + odd + bytes(4)
            moved = raw[:4] + struct.pack("<I", len(raw)) + raw[8:] + directory
            assert is_upright(decode_photo(moved)), (tag, kind)


def test_damaged_exif_of_an_avif_costs_the_exif_alone():
    tag = Image.Exif()
    tag[0x010E] = "a description"
    whole = encoded(picture(), "AVIF", quality=90, exif=tag)
    place, rng = whole.index(b"MM\0*", 64), random.Random(3)
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 4, 12))):
            data[place + rng.randrange(24)] = rng.randrange(256)
        assert is_upright(decode_photo(bytes(data)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_format_is_made_upright(kind, value):
    method = decode_module._TRANSPOSE.get({6: 8, 8: 6}.get(value, value))
    tag = Image.Exif()
    tag[0x0112] = value
    raw = encoded(picture() if method is None else picture().transpose(method), kind, exif=tag, quality=95)
    assert np.abs(np.asarray(decode_photo(raw), dtype=int) - np.asarray(picture(), dtype=int)).mean() < 6


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_made_upright_whatever_integer_it_is_written_as(value):
    method = decode_module._TRANSPOSE.get({6: 8, 8: 6}.get(value, value))
    stored = picture() if method is None else picture().transpose(method)
    for kind, form in {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}.items():
        data = exif(entry(0x0112, kind, 1, struct.pack("<" + form, value)))
        raw = with_chunk(encoded(stored, "PNG"), b"eXIf", data)
        assert decode_photo(raw).tobytes() == picture().tobytes()


def test_the_orientation_of_xmp_counts_where_exif_says_none():
    image = picture().transpose(Image.Transpose.ROTATE_90)
    xmp = b'<x tiff:Orientation="6"/>'
    png = with_chunk(encoded(image, "PNG"), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    assert is_upright(decode_photo(png))
    raw, data = encoded(image, "JPEG", quality=90), b"http://ns.adobe.com/xap/1.0/\0" + xmp
    assert is_upright(decode_photo(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + raw[2:]))


EXIF_KEY, XMP_KEY = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"


def written(data: bytes) -> bytes:
    """EXIF data as ImageMagick writes them as text."""
    lines = (data.hex()[place : place + 72] for place in range(0, 2 * len(data), 72))
    return "\n".join(["", "exif", f"{len(data):8}", *lines, ""]).encode()


def orientation_chunks() -> dict[str, list[tuple[bytes, bytes]]]:
    """Chunks of a PNG, of which some say that it lies on its side."""
    says, upright, silent = (b"Exif\0\0" + exif(e) for e in (lying(), entry(0x0112, 3, 1, b"\1\0"), entry(0x0100, 3, 1, b"\1\0")))
    xmp = b'<x tiff:Orientation="6"/>'
    in_xmp = (b"iTXt", XMP_KEY + bytes(4) + xmp)
    return {
        "tEXt": [(b"tEXt", EXIF_KEY + written(says))],
        "zTXt": [(b"zTXt", EXIF_KEY + b"\0" + zlib.compress(written(says)))],
        "iTXt": [(b"iTXt", EXIF_KEY + bytes(4) + written(says))],
        "packed iTXt": [(b"iTXt", EXIF_KEY + b"\1\0\0\0" + zlib.compress(written(says)))],
        "XMP": [in_xmp],
        "packed XMP": [(b"iTXt", XMP_KEY + b"\1\0en\0\0" + zlib.compress(xmp))],
        "XMP as tEXt": [(b"tEXt", XMP_KEY + xmp)],
        "XMP as zTXt": [(b"zTXt", XMP_KEY + b"\0" + zlib.compress(xmp))],
        "eXIf before text": [(b"eXIf", upright[6:]), (b"tEXt", EXIF_KEY + written(says))],
        "eXIf before XMP": [(b"eXIf", upright[6:]), in_xmp],
        "silent eXIf and text": [(b"eXIf", silent[6:]), (b"tEXt", EXIF_KEY + written(says))],
        "silent eXIf and XMP": [(b"eXIf", silent[6:]), in_xmp],
        "text before XMP": [(b"tEXt", EXIF_KEY + written(upright)), in_xmp],
        "silent text and XMP": [(b"tEXt", EXIF_KEY + written(silent)), in_xmp],
        "another profile": [(b"tEXt", b"Raw profile type xmp\0" + written(says))],
    }


@pytest.mark.parametrize("case", orientation_chunks())
def test_a_png_lies_as_comfyui_s_load_image_has_it(case):
    """That is Pillow's `exif_transpose`."""
    raw = encoded(picture().transpose(Image.Transpose.ROTATE_90), "PNG")
    for kind, data in orientation_chunks()[case]:
        raw = with_chunk(raw, kind, data)
    with Image.open(io.BytesIO(raw)) as image:
        assert decode_photo(raw).tobytes() == ImageOps.exif_transpose(image).convert("RGB").tobytes()


@pytest.mark.parametrize("text", [b"", b"exif", b"\nexif\n 4\nxyz", b"\nexif\n 4\n123", b"\nexif\n 4\n\xff\xff", b"\n" * 9])
def test_exif_that_is_damaged_as_text_does_not_cost_the_photo(text):
    assert is_upright(decode_photo(with_chunk(encoded(picture(), "PNG"), b"tEXt", EXIF_KEY + text)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", [None, 1])
def test_the_orientation_of_xmp_counts_in_every_format_where_exif_has_none_alone(kind, value):
    tag, stored = Image.Exif(), picture().transpose(Image.Transpose.ROTATE_90)
    if value:
        tag[0x0112] = value
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><x tiff:Orientation="6"/></x:xmpmeta>'
    more = {"tiffinfo": {700: xmp, **({0x0112: value} if value else {})}} if kind == "TIFF" else {"exif": tag, "xmp": xmp}
    raw = encoded(stored, kind, **more)
    with Image.open(io.BytesIO(raw)) as image:
        wanted = ImageOps.exif_transpose(image).size
    assert decode_photo(raw).size == wanted == (stored.size if value else SIZE)


@pytest.mark.parametrize(
    "kind", [b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"acTL", b"tIME"]
)
@pytest.mark.parametrize("size", [0, 3, 3_000_000, 90_000_000])
def test_a_chunk_of_a_png_that_is_damaged_or_huge_does_not_cost_the_photo(kind, size):
    packed = zlib.compress(bytes(size), 1)
    data = {b"iCCP": b"n\0\0" + packed, b"zTXt": b"n\0\0" + packed, b"iTXt": b"n\0\1\0\0\0" + packed}.get(
        kind, bytes(min(size, 3_000_000))
    )
    decoded = decode(with_chunk(encoded(picture(), "PNG"), kind, data))
    assert decoded.image.tobytes() == picture().tobytes()
    assert [str(note) for note in decoded.notes] in ([], ["its colour profile is damaged, and was not used"])


@pytest.mark.parametrize("marker", [0xE0, *range(0xE1, 0xF0), 0xFE])
@pytest.mark.parametrize(
    "start", [b"", b"Exif\0\0", b"MPF\0II*\0", b"ICC_PROFILE\0", b"JFIF\0", b"Adobe", b"Photoshop 3.0\x008BIM"]
)
def test_a_segment_of_a_jpeg_that_is_damaged_or_full_does_not_cost_the_photo(marker, start):
    raw = encoded(picture(), "JPEG", quality=90)
    expected = decode_photo(raw).tobytes()
    for length in (0, 1, 5, 40, 65_000):
        data = (start + random.Random(length).randbytes(length))[:65_000]
        if data.startswith((b"JFIF\0", b"Adobe")) and len(data) >= 12:
            continue  # these say how the pixels are written
        odd = raw[:20] + b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data + raw[20:]
        assert decode_photo(odd).tobytes() == expected


WHOLE = {
    "baseline": lambda: encoded(noise(), "JPEG", quality=90),
    "progressive": lambda: encoded(noise(), "JPEG", quality=90, progressive=True),
    "with restarts": lambda: encoded(noise(), "JPEG", quality=90, restart_marker_rows=1),
    "short restarts": lambda: encoded(noise(), "JPEG", quality=90, restart_marker_blocks=2),
    "grey": lambda: encoded(noise().convert("L"), "JPEG", quality=90),
    "cmyk": lambda: encoded(noise().convert("CMYK"), "JPEG", quality=90),
    "png": lambda: encoded(noise(), "PNG"),
    "png palette": lambda: encoded(noise().convert("P"), "PNG"),
    "webp": lambda: encoded(noise(), "WEBP"),
    "bmp": lambda: encoded(noise(), "BMP"),
    "gif": lambda: encoded(noise(), "GIF"),
    "tiff": lambda: encoded(noise(), "TIFF"),
    "tiff packed": lambda: encoded(noise(), "TIFF", compression="tiff_lzw"),
    "avif": lambda: encoded(noise(), "AVIF"),
}


@pytest.fixture(params=[False, True], ids=["strict", "lenient"])
def switches(request, monkeypatch):
    """Pillow's global switches, as another pack may have set them."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None if request.param else Image.MAX_IMAGE_PIXELS)


@pytest.mark.usefixtures("switches")
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about metadata
@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_lacks_pixels_is_refused(kind):
    whole = WHOLE[kind]()
    assert decode(whole).notes == ()
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.96):
        cut = whole[: int(len(whole) * share)]
        for raw in (
            (cut, cut + bytes(len(whole) - len(cut)))
            if "png" not in kind and "bmp" not in kind and "tiff" not in kind
            else (cut,)
        ):
            if kind in ("webp", "avif", "gif") and raw is not cut:
                continue  # a codec without sums cannot tell zeros from pixels
            with pytest.raises(UserError):
                decode(raw)


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("kind", ["baseline", "progressive", "with restarts", "short restarts", "grey", "cmyk"])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_its_end_mark_alone_is_used_with_a_note(kind, missing):
    whole = WHOLE[kind]()
    decoded = decode(whole[:-missing])
    assert decoded.image.tobytes() == decode_photo(whole).tobytes()
    # Pillow by itself needs the mark only where the last pixel's bits do not fill a byte.
    assert [str(note) for note in decoded.notes] in (["its last bytes are missing, but no pixel"], [])


@pytest.mark.parametrize("kind", ["baseline", "with restarts", "short restarts", "grey", "cmyk"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.9])
def test_half_a_jpeg_that_a_program_has_closed_is_refused(kind, share):
    whole = WHOLE[kind]()
    with pytest.raises(UserError, match="it ends before its pixels do"):
        decode(whole[: int(len(whole) * share)] + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_border_at_the_lower_edge_is_no_missing_pixel(options):
    image = noise()
    image.paste("white", (0, 100, 160, 120))
    raw = encoded(image, "JPEG", quality=90, **options)
    for data in (raw, raw + b"a trailer of the phone's", raw + raw, raw[:-2]):
        assert decode_photo(data).tobytes() == decode_photo(raw).tobytes()


@pytest.mark.parametrize("kind", ["baseline", "progressive", "with restarts", "short restarts", "grey", "cmyk"])
def test_a_jpeg_cut_anywhere_is_refused_or_has_every_pixel(kind):
    whole = WHOLE[kind]()
    pixels, refused = decode_photo(whole).tobytes(), 0
    lengths = [*range(len(whole) - 200, len(whole)), *range(len(whole) // 2, len(whole) - 200, 61)]
    for length in lengths:
        try:
            assert decode_photo(whole[:length]).tobytes() == pixels, length - len(whole)
        except UserError:
            refused += 1
    assert refused > len(lengths) * 0.8


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8, 0.9])
def test_a_progressive_jpeg_that_was_cut_and_closed_is_refused(share):
    whole = WHOLE["progressive"]()
    with pytest.raises(UserError):
        decode_photo(whole[: int(len(whole) * share)] + b"\xff\xd9")


@pytest.mark.parametrize(("bits", "dtype"), [(16, np.uint16), (32, np.int32)])
def test_brightness_of_a_tiff_is_read_by_its_depth_or_refused(bits, dtype):
    data = io.BytesIO()
    Image.fromarray(np.full((64, 64), 2**15, dtype)).save(data, "TIFF")
    if bits == 16:
        assert np.asarray(decode_photo(data.getvalue())).max() == 128
    else:
        with pytest.raises(UserError, match="its brightness is written as int32, which has no fixed white"):
            decode_photo(data.getvalue())


def tiff(bits: int, photometric: int, data: bytes, order: str = "<") -> bytes:
    """A grey TIFF of 8 x 8 pixels."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 8, 279: len(data)}
    entries = b"".join(entry(tag, 3, 1, struct.pack(order + "H", value), order) for tag, value in tags.items())
    start = struct.pack(order + "HI", 42, 8 + len(data))
    return (b"II" if order == "<" else b"MM") + start + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_the_white_of_a_grey_tiff_may_be_0(bits, photometric):
    shown = np.asarray(decode_photo(tiff(bits, photometric, bytes(8 * bits)))).mean()
    assert shown == (0 if photometric else 255)


@pytest.mark.parametrize(("bits", "photometric", "order"), [(16, 0, ">"), (12, 1, ">"), (64, 1, "<")])
def test_a_kind_of_a_format_that_pillow_lacks_is_not_called_damaged_alone(bits, photometric, order):
    with pytest.raises(UserError, match="damaged, or a kind of TIFF that is not read here"):
        decode_photo(tiff(bits, photometric, bytes(8 * bits), order))


@pytest.mark.parametrize("filling", [b"\0", b"\0\0\0", b"\xff\xff", b"\x12\x34\x56", b"\xff\0\x99"], ids=repr)
@pytest.mark.parametrize("mark", [b"\xff\xe0", b"\xff\xdb"], ids=["behind EXIF", "behind JFIF"])
def test_filling_between_the_segments_of_a_jpeg_costs_nothing(filling, mark):
    """As a length that is wrong leaves it; ComfyUI's LoadImage reads it."""
    raw = with_exif("JPEG", exif(lying()))
    at = raw.index(mark)
    assert decode_photo(raw[:at] + filling + raw[at:]).tobytes() == decode_photo(raw).tobytes()
    assert is_upright(decode_photo(raw))


@pytest.mark.parametrize("at", [0, 5, 20])
def test_exif_that_goes_on_in_a_second_segment_is_read_whole(at):
    raw, data = with_exif("JPEG", exif(lying())), exif(entry(0x0100, 3, 1, b"\1\0"), lying())
    parts = [b"Exif\0\0" + part for part in (data[:at], data[at:])]
    segments = [b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts]
    start = raw.index(b"\xff\xe0")
    odd = b"".join((raw[:2], *segments, raw[start:]))
    with Image.open(io.BytesIO(odd)) as image:
        assert ImageOps.exif_transpose(image).size == decode_photo(odd).size == SIZE


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("kind", ["png", "png palette", "gif"])
def test_a_file_that_lacks_its_end_but_no_pixel_is_used(kind):
    whole = WHOLE[kind]()
    missing = 1 if kind == "gif" else 12
    assert decode_photo(whole[:-missing]).tobytes() == decode_photo(whole).tobytes()


def test_pixels_in_the_middle_of_a_png_are_missed(switches):
    png = bytearray(encoded(noise(), "PNG"))
    start = png.index(b"IDAT")
    length = struct.unpack(">I", png[start - 4 : start])[0]
    half = png[start : start + 4 + length // 2]
    short = png[: start - 4] + struct.pack(">I", length // 2) + half + struct.pack(">I", zlib.crc32(half))
    with pytest.raises(UserError, match="damaged"):
        decode(bytes(short + png[start + 8 + length :]))


def test_damage_in_the_pixels_of_a_png_is_not_told_as_a_missing_end():
    png = bytearray(encoded(noise(), "PNG"))
    start = png.index(b"IDAT")
    png[start + 40 : start + 44] = b"\xff" * 4
    with pytest.raises(UserError, match="damaged: Error -3 while decompressing data"):
        decode(bytes(png))


@pytest.mark.parametrize(("alpha", "shown"), [([0, 0], [(234, 51, 35)] * 2), ([0, 255], [(255, 255, 255), (234, 51, 35)])])
def test_the_fourth_byte_of_a_bmp_is_no_transparency_where_it_is_always_0(alpha, shown):
    """As browsers have it."""
    pixels = b"".join(bytes((35, 51, 234, value)) for value in alpha)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    head = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    bmp = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels
    image = decode_photo(bmp)
    assert [image.getpixel((x, 0)) for x in range(2)] == shown


FORMATS = {
    "a.jpg": "JPEG", "a.jpeg": "JPEG", "a.JPE": "JPEG", "a.jfif": "JPEG", "a.mpo": "MPO", "a.png": "PNG", "a.apng": "PNG",
    "a.webp": "WEBP", "a.bmp": "BMP", "a.dib": "BMP", "a.gif": "GIF", "a.tif": "TIFF", "a.TIFF": "TIFF", "a.avif": "AVIF",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_that_pillow_reads_is_used(tmp_path, name):
    (tmp_path / name).write_bytes(encoded(noise(), FORMATS[name]))
    dataset, _ = read_folder(tmp_path, 64)
    assert (dataset.photos[0].width, dataset.photos[0].height) == (160, 120)
    assert (
        np.abs(np.asarray(decode_photo((tmp_path / name).read_bytes()), dtype=int) - np.asarray(noise(), dtype=int)).mean() < 25
    )


FTYP = struct.pack(">I4s4s4x4s4s", 24, b"ftyp", b"heic", b"mif1", b"heic") + bytes(400)
REFUSED = {
    "a.heic": (FTYP, "needs the package pillow-heif"),
    "a.jpg": (FTYP, "needs the package pillow-heif"),
    "a.hif": (FTYP.replace(b"heic", b"hevc"), "needs the package pillow-heif"),
    "a.nef": (b"MM\0*" + bytes(60), "a camera's raw file: develop it"),
    "a.dng": (b"II*\0" + bytes(60), "a camera's raw file: develop it"),
    "a.cr3": (FTYP.replace(b"heic", b"crx "), "a camera's raw file: develop it"),
    "a.png": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "a camera's raw file: develop it"),
    "a.webp": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL is not read here"),
    "a.jxl": (b"\xff\x0a", "unsupported format"),
    "a.psd": (b"8BPS", "unsupported format"),
    "a.jpeg": (b"8BPS" + bytes(40), "PSD is not read here"),
    "a.gif": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "damaged or not an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named_with_its_own_remedy(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    raw, reason = REFUSED[name]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, 64)
    assert f"1 of 1 images cannot be read: {name} ({reason}" in str(error.value).replace("HEIC, which ", "")


def test_heic_is_read_by_pillow_heif_where_that_is_installed(monkeypatch):
    image = picture()
    stub = SimpleNamespace(open_heif=lambda raw: SimpleNamespace(size=SIZE, to_pillow=lambda: image))
    monkeypatch.setitem(sys.modules, "pillow_heif", stub)
    assert decode_photo(FTYP).tobytes() == image.tobytes()
    converted = decode_photo(FTYP + b"colrnclx\0\x0c\0\x0d")
    assert converted.tobytes() != image.tobytes()
    image.info["icc_profile"] = icc.rgb_profile(icc.DISPLAY_P3)
    assert np.abs(np.asarray(decode_photo(FTYP), dtype=int) - np.asarray(converted, dtype=int)).max() <= 2
    stub.open_heif = lambda raw: SimpleNamespace(size=(30_000, 30_000))
    with pytest.raises(UserError, match="megapixels"):
        decode(FTYP)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_in_a_file_the_first_is_used_with_a_note(kind):
    raw = encoded(picture(), kind, save_all=True, append_images=[noise(SIZE)])
    decoded = decode(raw)
    assert is_upright(decoded.image)
    assert [str(note) for note in decoded.notes] == ["only the first of its pictures is used"]
    assert decode(encoded(picture(), kind, save_all=True)).notes == ()


THUMBNAIL = {254: 1}, {255: 2}, {254: 5}


def in_pages(*pages: tuple[Image.Image, dict[int, int]], big: bool) -> bytes:
    """A TIFF of these pages, each with more tags."""
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream, new=True) as writer:
        for image, tags in pages:
            image.save(writer, "TIFF", tiffinfo=tags, big_tiff=big)
            writer.newFrame()
    return stream.getvalue()


@pytest.mark.parametrize("tags", THUMBNAIL, ids=str)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["thumbnail first", "photo first", "two thumbnails", "two photos"])
def test_a_thumbnail_in_a_tiff_is_not_taken_for_the_photo(tags, big, order):
    small, full = (noise((12, 8)), tags), (picture(), {254: 0})
    pages = {
        "thumbnail first": [small, full],
        "photo first": [full, small],
        "two thumbnails": [small, small, full, small],
        "two photos": [small, full, full],
    }[order]
    decoded = decode(in_pages(*pages, big=big))
    assert is_upright(decoded.image)
    noted = ["only the first of its pictures is used"] if order == "two photos" else []
    assert [str(note) for note in decoded.notes] == noted


@pytest.mark.parametrize("order", "<>")
def test_the_photo_below_the_thumbnail_of_a_tiff_is_used_as_the_thumbnail_lies(order):
    """As programs of cameras write them: what is said of both stands in the first directory."""
    lies = picture().transpose(Image.Transpose.ROTATE_90)
    raw = tiff_with_the_photo_below(lies, order)
    assert is_upright(decode_photo(raw))
    for damaged in (raw[:4] + b"\xff\xff\0\0" + raw[8:], raw[:-20], raw.replace(struct.pack(order + "HHI", 330, 4, 1), bytes(8))):
        with suppress(UserError):
            decode_photo(damaged)


def tiff_with_the_photo_below(image: Image.Image, order: str) -> bytes:
    def directory(size: tuple[int, int], kind: int, pixels_at: int, *more: tuple[int, int, int]) -> bytes:
        width, height = size
        tags = [(254, 4, kind), (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, pixels_at)]
        tags += [*more, (277, 3, 1), (278, 4, height), (279, 4, width * height)]
        values = [
            struct.pack(f"{order}HHI{'H2x' if form == 3 else 'I'}", tag, form, 1, value) for tag, form, value in sorted(tags)
        ]
        return struct.pack(order + "H", len(tags)) + b"".join(values) + bytes(4)

    grey, length = image.convert("L"), 200
    thumbnail = directory((4, 4), 1, 8 + 2 * length, (274, 3, 6), (330, 4, 8 + length)).ljust(length, b"\0")
    full = directory(grey.size, 0, 8 + 2 * length + 16).ljust(length, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return header + thumbnail + full + bytes(16) + grey.tobytes()


def test_pages_of_a_tiff_in_a_circle_end():
    raw = in_pages((picture(), {254: 1}), (picture(), {254: 1}), big=False)
    start = struct.unpack_from("<I", raw, 4)[0]
    at = start + 2 + 12 * struct.unpack_from("<H", raw, start)[0]
    assert is_upright(decode_photo(raw[:at] + struct.pack("<I", start) + raw[at + 4 :]))


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_what_is_larger_than_the_budget_is_scaled_down(monkeypatch, kind):
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 1000)
    small = decode(encoded(picture(), kind, quality=90))
    assert small.image.size == (24, 16)
    assert [str(note) for note in small.notes] == ["scaled down from 48x32 pixels"]
    wanted = np.asarray(picture().reduce(2), dtype=int)
    assert np.abs(np.asarray(small.image, dtype=int) - wanted).mean() < 8


def test_a_phone_s_108_megapixels_are_read():
    image = decode(encoded(Image.new("L", (12_000, 9_000), 90), "JPEG", quality=50))
    assert image.image.size == (6_000, 4_500)
    assert "scaled down from 12000x9000 pixels" in map(str, image.notes)


def header(kind: str, size: tuple[int, int]) -> bytes:
    """A picture whose header says another size than it has."""
    raw = bytearray(encoded(picture(), kind.removesuffix(" progressive"), progressive="progressive" in kind))
    if kind == "PNG":
        raw[16:24] = struct.pack(">II", *size)
        raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    elif kind == "BMP":
        raw[18:26] = struct.pack("<ii", *size)
    elif kind == "GIF":
        return bytes(raw[:6]) + struct.pack("<HH", *size) + bytes(raw[10:])
    else:
        place = raw.index(b"\xff\xc2" if "progressive" in kind else b"\xff\xc0")
        raw[place + 5 : place + 9] = struct.pack(">HH", size[1], size[0])
    return bytes(raw)


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("kind", ["JPEG", "JPEG progressive", "PNG", "BMP", "GIF"])
def test_an_absurd_size_is_refused_by_the_header(kind):
    with pytest.raises(UserError, match=r"more than \d+ megapixels"):
        decode(header(kind, (60_000, 60_000)))


PROFILED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


@pytest.mark.parametrize("kind", PROFILED)
def test_wide_gamut_is_converted(kind):
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {"quality": 100}
    for primaries, stored in ((icc.DISPLAY_P3, (234, 51, 35)), (icc.ADOBE_RGB, (219, 0, 0))):
        raw = encoded(Image.new("RGB", SIZE, stored), kind, icc_profile=icc.rgb_profile(primaries), **options)
        found = decode_photo(raw).getpixel((5, 5))
        assert np.abs(np.subtract(found, (255, 0, 0))).max() <= 3
        assert decode_photo(raw).tobytes() == decode_photo(raw).tobytes()


def adobe_exif(order: str, rule: bytes) -> bytes:
    """What a camera writes of Adobe RGB where it adds no profile."""
    directory = struct.Struct(order + "H12sI")
    first = entry(0x8769, 4, 1, struct.pack(order + "I", 26), order)
    second = entry(0xA005, 4, 1, struct.pack(order + "I", 44), order)
    third = entry(0x0001, 2, 4, rule, order)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8) + b"".join(directory.pack(1, one, 0) for one in (first, second, third))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_adobe_rgb_is_known_by_exif_alone(kind, order):
    image = Image.new("RGB", SIZE, (219, 0, 0))
    for rule, wanted in ((b"R03\0", (255, 0, 0)), (b"R98\0", (219, 0, 0))):
        raw = encoded(image, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
        data = adobe_exif(order, rule)
        if kind == "PNG":
            raw = with_chunk(raw, b"eXIf", data)
        else:
            raw = raw[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data + raw[2:]
        assert np.abs(np.subtract(decode_photo(raw).getpixel((5, 5)), wanted)).max() <= 3
        assert decode(raw).notes == ()


def test_adobe_rgb_is_known_by_the_exif_of_a_webp_alone():
    raw = encoded(Image.new("RGB", SIZE, (219, 0, 0)), "WEBP", lossless=True, exif=b"Exif\0\0" + adobe_exif("<", b"R03\0"))
    assert np.abs(np.subtract(decode_photo(raw).getpixel((5, 5)), (255, 0, 0))).max() <= 3


def with_codes(kind: str, colour: tuple[int, int, int], codes: tuple[int, int], **options) -> bytes:
    """A picture that says by the codes for its primaries and its transfer function what its colours are."""
    image = Image.new("RGB", SIZE, colour)
    if kind == "PNG":
        return with_chunk(encoded(image, "PNG", **options), b"cICP", bytes((*codes, 0, 1)))
    raw = encoded(image, kind, quality=100, subsampling="4:4:4", **options)
    place = raw.index(b"colrnclx") + 8
    return raw[:place] + struct.pack(">HH", *codes) + raw[place + 4 :]


@pytest.mark.parametrize("kind", ["PNG", "AVIF"])
def test_display_p3_is_known_by_its_codes_alone(kind):
    for codes, wanted in (((12, 13), (255, 0, 0)), ((1, 13), (234, 51, 35)), ((2, 2), (234, 51, 35))):
        decoded = decode(with_codes(kind, (234, 51, 35), codes))
        assert np.abs(np.subtract(decoded.image.getpixel((5, 5)), wanted)).max() <= 3
        assert decoded.notes == ()


def test_a_profile_counts_before_codes():
    raw = with_codes("PNG", (219, 0, 0), (12, 13), icc_profile=icc.rgb_profile(icc.ADOBE_RGB))
    assert np.abs(np.subtract(decode_photo(raw).getpixel((5, 5)), (255, 0, 0))).max() <= 3


@pytest.mark.parametrize(("name", "primaries"), [(b"Adobe RGB (1998)", icc.ADOBE_RGB), (b"Display P3", icc.DISPLAY_P3)])
def test_the_profiles_that_are_built_in_are_those_of_the_standards(name, primaries):
    """Against those that are computed from the primaries; the tone curves of Adobe RGB differ, but not at full values."""
    for pixel in ((255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 0)):
        image = Image.new("RGB", SIZE, pixel)
        profiles = colour.built_in(name), icc.rgb_profile(primaries)
        built, computed = (to_srgb(image, profile)[0].getpixel((0, 0)) for profile in profiles)
        assert np.abs(np.subtract(built, computed)).max() <= 2
    grey = to_srgb(Image.new("RGB", SIZE, (128, 128, 128)), colour.built_in(name))[0].getpixel((0, 0))
    assert grey == pytest.approx((127, 127, 127), abs=2)


@pytest.mark.parametrize("kind", PROFILED)
@pytest.mark.parametrize("more", [0, 1_500_000])
def test_srgb_stays_as_it_is_to_the_byte(kind, more):
    profile = icc.rgb_profile(icc.SRGB, bytes(more))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert decode_photo(encoded(picture(), kind, icc_profile=profile, **options)).tobytes() == (
        decode_photo(encoded(picture(), kind, **options)).tobytes()
    )


def test_transparency_and_grey_keep_their_shape_under_a_profile():
    profile = icc.rgb_profile(icc.DISPLAY_P3)
    image = Image.new("RGBA", SIZE, (234, 51, 35, 255))
    image.paste((255, 0, 255, 0), (0, 0, 10, 10))
    decoded = decode_photo(encoded(image, "PNG", icc_profile=profile))
    assert decoded.getpixel((2, 2)) == (255, 255, 255)
    assert np.abs(np.subtract(decoded.getpixel((20, 20)), (255, 0, 0))).max() <= 3
    assert decode_photo(encoded(picture("L"), "PNG", icc_profile=profile)).size == SIZE


GREY = [(kind, mode) for kind in ("PNG", "TIFF", "WEBP") for mode in ("L", "LA", "I;16", "P", "RGB", "RGBA")]


@pytest.mark.parametrize(("kind", "mode"), [pair for pair in GREY if pair != ("WEBP", "I;16")])
def test_a_profile_of_grey_is_used_for_grey_however_that_is_written(kind, mode):
    grey = Image.fromarray(np.full((32, 48), 128, np.uint8))
    image = Image.fromarray(np.full((32, 48), 128 * 257, np.uint16)) if mode == "I;16" else grey.convert(mode)
    decoded = decode(encoded(image, kind, icc_profile=icc.grey_profile(1.0), **({"lossless": True} if kind == "WEBP" else {})))
    light = 128 / 255  # of a linear curve; what sRGB writes for it:
    wanted = round(255 * (1.055 * light ** (1 / 2.4) - 0.055))
    assert np.abs(np.subtract(decoded.image.getpixel((5, 5)), (wanted,) * 3)).max() <= 2
    assert decoded.notes == ()


def test_a_profile_of_grey_in_a_photo_with_colours_is_not_used_and_told():
    decoded = decode(encoded(picture(), "PNG", icc_profile=icc.grey_profile(1.0)))
    assert decoded.image.tobytes() == picture().tobytes()
    assert [str(note) for note in decoded.notes] == ["its colour profile is damaged, and was not used"]


@pytest.mark.parametrize(("channels", "depth"), [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (3, 16)])
@pytest.mark.parametrize("transparent", [0, 1])
def test_the_colour_that_a_png_calls_transparent_is_white(channels, depth, transparent):
    """Of two pixels, one has it."""
    values = (1, 2**depth // 2 + 2**depth // 5) if depth > 1 else (0, 1)
    colour = {1: 0, 3: 2}[channels]
    bits = "".join(f"{value:0{depth}b}" * channels for value in values).ljust(8, "0")
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8 or 1, "big") if depth >= 8 else bytes((0, int(bits, 2)))
    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"tRNS", struct.pack(">H", values[transparent]) * channels), (b"IDAT", zlib.compress(row))
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*chunks, (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    image = decode_photo(png)
    kept = round(values[1 - transparent] * 255 / (2**depth - 1))
    assert image.getpixel((transparent, 0)) == (255, 255, 255)
    assert np.abs(np.subtract(image.getpixel((1 - transparent, 0)), (kept,) * 3)).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "P", "1", "I;16", "LA"])
def test_a_damaged_profile_costs_the_profile_with_a_note(mode):
    rng, good = random.Random(2), icc.rgb_profile(icc.DISPLAY_P3)
    image = picture("L").convert(mode) if mode in ("I;16", "LA") else picture(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    plain = decode_photo(encoded(image, kind)).tobytes()
    noted = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.choice((1, 3, 12))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        decoded = decode(encoded(image, kind, icc_profile=bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])))
        assert decoded.image.size == SIZE
        if decoded.notes:
            noted += 1
            assert [str(note) for note in decoded.notes] == ["its colour profile is damaged, and was not used"]
            assert decoded.image.tobytes() == plain
    assert noted


def test_kinds_are_known_by_their_bytes():
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        assert image_kind(encoded(picture(), kind)) == kind
    assert image_kind(b"") == image_kind(b"ftyp") == image_kind(b"\0\0\0\x18ftypisom") == image_kind(b"text") == ""
