"""Folders as people have them, through the running server: the panel and the nodes say the same, and what a user expects."""

import io
import json
import os
import struct
import sys
import urllib.error
import urllib.parse
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tests.icc import DISPLAY_P3, SRGB, rgb_profile
from tools.server import Failed

SKY, BALL, RED, WHITE = (40, 120, 200), (200, 60, 50), (255, 0, 0), (255, 255, 255)


def photo(mode: str = "RGB", grass: int = 90) -> Image.Image:
    """Sky above grass; other grass, another photo."""
    image = Image.new("RGB", (96, 96), SKY)
    image.paste((80, 140, grass), (0, 60, 96, 96))
    image.paste(BALL, (30, 30, 60, 60))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}), **options)
    return stream.getvalue()


def png_with(kind: bytes, data: bytes) -> bytes:
    png, chunk = encoded(photo(), "PNG"), struct.pack(">I", len(data)) + kind + data
    return png[:33] + chunk + struct.pack(">I", zlib.crc32(kind + data)) + png[33:]


def lines(*captions: tuple[str, str | None], key: str = "text") -> bytes:
    """metadata.jsonl, with letters as they are and not as escapes."""
    return "".join(json.dumps({"file_name": n, key: text}, ensure_ascii=False) + "\n" for n, text in captions).encode()


def cut_out() -> Image.Image:
    """The ball alone; pink lies hidden below the transparency."""
    image = Image.new("RGBA", (96, 96), (255, 0, 255, 0))
    image.paste((*BALL, 255), (30, 30, 60, 60))
    return image


def in_display_p3() -> Image.Image:
    """A sky that sRGB writes as (255, 0, 0)."""
    image = photo()
    image.paste((234, 51, 35), (0, 0, 96, 30))
    return image


def two_pages() -> bytes:
    """A TIFF whose first page is a thumbnail, of another colour than the photo."""
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream, new=True) as writer:
        for image, kind in ((Image.new("RGB", (8, 8), RED), 1), (photo(), 0)):
            image.save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    return stream.getvalue()


A, B = encoded(photo()), encoded(photo(grass=30))
TWO = {"a.jpg": A, "b.jpg": B}
WIDTH, LYING = struct.pack("<HHI4s", 256, 2, 4, b"96x\0"), struct.pack("<HHIHxxI", 274, 3, 1, 6, 0)
EXIF = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + WIDTH + LYING
LARGE = rgb_profile(SRGB, bytes(1_500_000))
HEIC = struct.pack(">I4s4s4x4s4s", 24, b"ftyp", b"heic", b"mif1", b"heic") + bytes(400)
ON_GRASS, IN_SNOW, NONE = "mysks dog on grass", "mysks dog in snow", "a photo of mysks dog"
UNUSED_MASK = "1 of 1 photos have a mask, which mask_weight 1 leaves without effect."
KINDS = ("canny", "depth", "mask", "pose", "sketch")
BOTH = {"a.jpg": ON_GRASS, "b.jpg": IN_SNOW}


@dataclass(frozen=True)
class Case:
    """A folder that is read."""

    files: dict[str, bytes]
    captions: dict[str, str]
    """By photo, as they are trained; of several, numbered as the node numbers them."""
    said: tuple[str, ...] = ()
    """Of the folder, by the node and by the panel."""
    told: tuple[str, ...] = ()
    """By the node alone: the panel marks the photo."""
    marked: dict[str, str] = field(default_factory=dict)
    """By photo, in the panel, besides that it has no caption."""
    sky: tuple[int, int, int] = SKY
    """The colour at the upper left of the first photo as training sees it."""


CASES = {
    "exif_of_a_wrong_type": Case({"a.jpg": encoded(photo().transpose(Image.Transpose.ROTATE_90), exif=EXIF)}, {"a.jpg": NONE}),
    "large_profile": Case({"a.png": png_with(b"iCCP", b"x\0\0" + zlib.compress(LARGE))}, {"a.png": NONE}),
    "garbage_in_exif": Case({"a.png": png_with(b"eXIf", b"no TIFF header at all")}, {"a.png": NONE}),
    "no_end_mark": Case(
        {"a.jpg": A.removesuffix(b"\xff\xd9")},
        {"a.jpg": NONE},
        told=("Photos that were read with a remark: a.jpg (its last bytes are missing, but no pixel).",),
        marked={"a.jpg": "its last bytes are missing, but no pixel"},
    ),
    "jfif": Case({"a.jpg": A, "b.jfif": B}, {"a.jpg": NONE, "b.jfif": NONE}),
    "wide_gamut": Case({"a.png": encoded(in_display_p3(), "PNG", icc_profile=rgb_profile(DISPLAY_P3))}, {"a.png": NONE}, sky=RED),
    "transparency": Case({"a.png": encoded(cut_out(), "PNG")}, {"a.png": NONE}, told=(UNUSED_MASK,), sky=WHITE),
    "thumbnail": Case({"a.tif": two_pages()}, {"a.tif": NONE}),
    "one_colour": Case(
        {"a.png": encoded(Image.new("RGB", (96, 96), RED), "PNG")},
        {"a.png": NONE},
        told=("Photos of one colour, or all transparent, have nothing to learn from: a.png.",),
        marked={"a.png": "of one colour, or all transparent"},
        sky=RED,
    ),
    "line_separator": Case({**TWO, "metadata.jsonl": lines(("a.jpg", "a dog\u2028on grass"), ("b.jpg", "a dog in snow"))}, BOTH),
    "null": Case({"a.jpg": A, "metadata.jsonl": lines(("a.jpg", None))}, {"a.jpg": NONE}),
    "path": Case({**TWO, "metadata.jsonl": lines(("./a.jpg", "a dog on grass"), ("B.JPG", "a dog in snow"))}, BOTH),
    "caption_key": Case(
        {**TWO, "metadata.jsonl": lines(("a.jpg", "a dog on grass"), ("b.jpg", "a dog in snow"), key="caption")}, BOTH
    ),
    "half_emoji": Case(
        {"a.jpg": A, "metadata.jsonl": b'{"file_name": "a.jpg", "text": "a dog on grass \\ud83d"}\n'}, {"a.jpg": ON_GRASS}
    ),
    "caption_suffix": Case({**TWO, "a.caption": b"a dog on grass\n", "b.caption": b"a dog in snow\n"}, BOTH),
    "utf_16": Case({"a.jpg": A, "a.txt": "a dog on grass\r\n".encode("utf-16-le")}, {"a.jpg": ON_GRASS}),
    "table": Case({**TWO, "metadata.csv": b"sep=;\r\nfile_name;text\r\na.jpg;a dog on grass\r\nb.jpg;a dog in snow\r\n"}, BOTH),
    "lines": Case(
        {"a.jpg": A, "a.txt": b"a dog on grass\na pet\n"},
        {"a.jpg (1/2)": ON_GRASS, "a.jpg (2/2)": "mysks dog, a pet"},
        marked={"a.jpg": "2 captions, a line each: one is drawn each time"},
    ),
    "masks": Case(
        {"a.jpg": A, "a-masklabel.png": encoded(photo(), "PNG"), "a_mask.png": encoded(photo(), "PNG")},
        {"a.jpg": NONE},
        ("Masks and the like of other trainers are not used: a_mask.png.",),
        told=(UNUSED_MASK,),
    ),
    "companions": Case(
        {"a.jpg": A, **{f"a_{kind}.png": B for kind in KINDS}, "yoga_pose.jpg": B},
        {"a.jpg": NONE, "yoga_pose.jpg": NONE},
        (f"Masks and the like of other trainers are not used: {', '.join(f'a_{kind}.png' for kind in KINDS)}.",),
    ),
    "words_between": Case(
        {**TWO, "a.txt": b"mysks, a fluffy dog", "b.txt": "mysks\u200bdog in snow".encode()},
        {"a.jpg": "mysks, a fluffy dog", "b.jpg": IN_SNOW},
    ),
    "10_mysks dog": Case(
        {"a.jpg": A, "a.txt": b"mysks dog on grass"},
        {"a.jpg": ON_GRASS},
        ("By the name of the folder '10_mysks dog', each photo counts 10 times.",),
    ),
    "one_stem": Case(
        {"a.jpg": A, "a.png": encoded(photo(grass=30), "PNG"), "a.txt": b"a dog on grass"},
        {"a.jpg": ON_GRASS, "a.png": ON_GRASS},
        (
            "Photos of one name share a caption: a.jpg (a.txt), a.png (a.txt). Where they need their own, call the files as in "
            "a.jpg.txt.",
        ),
        marked=dict.fromkeys(("a.jpg", "a.png"), "shares a.txt with another photo"),
    ),
}
REFUSED = {
    "heic_named_jpg": ({"a.jpg": A, "b.jpg": HEIC}, "b.jpg", "HEIC, which needs the package pillow-heif in ComfyUI's Python"),
    "half_a_file": ({"a.jpg": A, "b.jpg": B[: len(B) // 2]}, "b.jpg", "damaged: it ends before its pixels do"),
    "pcx": ({"a.jpg": A, "b.pcx": b"\n\5\1\1"}, "b.pcx", "unsupported format"),
    "latin_1": ({"a.jpg": A, os.fsdecode(b"caf\xe9.jpg"): B}, "caf?.jpg", "its name is not UTF-8: rename it"),
}


def written(base_directory, name: str, files: dict[str, bytes]) -> str:
    folder = base_directory / "input" / "cases" / name
    folder.mkdir(parents=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return f"cases/{name}"


def panel(server, folder: str) -> dict:
    query = urllib.parse.urlencode({"folder": folder, "resolution": 64, "crop": "center"})
    return server.get(f"/subject_trainer/photos?{query}")


def queued(server, folder: str):
    graph = {
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": folder, "resolution": 64, "crop": "center"}},
        "2": {"class_type": "CaptionWithToken", "inputs": {"dataset": ["1", 0], "token": "mysks", "class_word": "dog"}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 1]}},
    }
    graph["2"]["inputs"]["template"] = "a photo of {token} {class}"
    return server.run(graph).outputs


@pytest.mark.parametrize("name", CASES)
def test_a_folder_is_read_as_its_owner_expects(server, base_directory, name):
    case = CASES[name]
    folder = written(base_directory, name, case.files)
    shown, outputs = panel(server, folder), queued(server, folder)
    assert folder in server.options("DatasetLoader", "folder")
    assert {c["name"]: c["text"] for c in outputs["2"]["captions"][0]["captions"]} == case.captions
    assert shown["notes"] == list(case.said)
    ready, *told = outputs["1"]["text"][0].split("\n")
    assert ready.startswith("1 photo, " if len(shown["photos"]) == 1 else "2 photos, ")
    assert sorted(told) == sorted((*case.said, *case.told))
    for photo_shown in shown["photos"]:
        mark = case.marked.get(photo_shown["name"])
        assert [note for note in photo_shown["notes"] if note != "no caption"] == ([mark] if mark else [])
    colour = server.image(outputs["4"]["images"][0]).convert("RGB").getpixel((4, 4))
    assert np.abs(np.subtract(colour, case.sky)).max() <= 3


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "latin_1" or sys.platform == "linux"])
def test_a_file_that_cannot_be_read_is_named_by_panel_and_node(server, base_directory, name):
    files, file, reason = REFUSED[name]
    folder = written(base_directory, name, files)
    notes = {photo["name"]: photo["notes"] for photo in panel(server, folder)["photos"]}
    assert notes == {"a.jpg": ["no caption"], file: [f"cannot be read: {reason}"]}
    with pytest.raises(Failed) as error:
        queued(server, folder)
    assert str(error.value).endswith(
        f"1 of 2 images cannot be read: {file} ({reason}). Where nothing else is said, convert them to jpg or png, or remove "
        "them."
    )


def test_a_folder_of_kohya_s_offers_the_one_below(server, base_directory):
    written(base_directory, "img/5_mysks dog", {"a.jpg": A})
    sentence = "The folder 'img' has no photos of its own. Choose one of its subfolders: img/5_mysks dog (1 photo)."
    with pytest.raises(urllib.error.HTTPError) as error:
        panel(server, "cases/img")
    assert json.loads(error.value.read()) == {"error": sentence}
    with pytest.raises(Failed) as failed:
        queued(server, "cases/img")
    assert str(failed.value).endswith(sentence)
    assert "cases/img/5_mysks dog" in server.options("DatasetLoader", "folder")
