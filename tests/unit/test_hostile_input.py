"""Whatever a stranger can write into names, files and folders is either taken as meant or refused with a ValueError."""

import io
import json
import random
import time
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.icc import DISPLAY_P3, rgb_profile
from trainer.dataset.caption_files import read_captions
from trainer.dataset.captions import caption_with_token, class_prompt, fill_template, has_word, split_at_word
from trainer.dataset.decode import decode_photo
from trainer.dataset.photos import Dataset, Photo
from trainer.run.events import KINDS, Progress, decode
from trainer.run.messages import Message, UserError, message
from trainer.run.metrics_file import read_metrics
from trainer.run.names import check_name, check_token
from trainer.run.run_dir import Run
from trainer.run.settings import GROUPS, Settings

FUZZED = 3200
NASTY = st.sampled_from(
    [
        ".",
        "..",
        "/",
        "\\",
        ":",
        "\0",
        "\n",
        "con",
        "NUL.txt",
        "COM1",
        "C:",
        "\\\\host\\share",
        "~",
        "%",
        "‮",
        "ﬁ",
        "．．",
        "😀",
        " ",
    ]
)
TEXT = st.one_of(st.text(max_size=80), st.lists(st.one_of(NASTY, st.text(max_size=6)), max_size=8).map("".join))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(TEXT)
def test_a_name_stays_one_file_name_on_every_system(text):
    for check in (check_name, check_token):
        try:
            name = check(text)
        except ValueError:
            continue
        assert Path(name).name == PureWindowsPath(name).name == name
        assert not PureWindowsPath(name).is_reserved() if hasattr(PureWindowsPath, "is_reserved") else True
        assert name not in (".", "..")
        assert name.isprintable()
        assert name == name.strip()


@given(TEXT, st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), TEXT)
def test_every_caption_gets_its_token_and_keeps_its_words(caption, token, class_word):
    class_word = " ".join(class_word.split())
    taught = caption_with_token(caption, token, class_word)
    assert has_word(taught, token)
    assert len(split_at_word(taught, token)) >= 2
    assert class_prompt("a photo of {token} {class}", class_word).startswith("a photo of")


@given(TEXT)
def test_a_template_is_filled_or_refused(template):
    if "{token}" in template:
        assert "mysks" in fill_template(template, "mysks", "toy")
    else:
        with pytest.raises(ValueError, match=r"no \{token\}"):
            fill_template(template, "mysks", "toy")


ENTRIES = st.dictionaries(
    st.sampled_from(["file_name", "text", "caption", "prompt", "repeats", "tags", "./a.png"]), JSON, max_size=4
)
CAPTION_BYTES = st.one_of(
    st.binary(max_size=300),
    JSON.map(lambda data: json.dumps(data).encode()),
    ENTRIES.map(lambda entry: json.dumps({"file_name": "a.png", **entry}).encode()),
    st.lists(ENTRIES, max_size=3).map(lambda entries: json.dumps(entries).encode()),
    st.tuples(TEXT, st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1251", "cp932", "gbk"])).map(
        lambda given: given[0].encode(given[1], "replace")
    ),
    TEXT.map(lambda text: f"file_name,text\na.png,{text}\n".encode()),
    st.tuples(TEXT, st.sampled_from(["", "\n", "sep=;\n", "sep=;;\r\n \r"]), st.integers(0, 3)).map(
        lambda given: f"{given[1]}file_name;text\na.png;{given[0]}\n".encode() + bytes(given[2])
    ),
)


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.png.txt", "metadata.jsonl", "metadata.csv", "metadata.json"])
@settings(max_examples=300)
@given(CAPTION_BYTES)
def test_caption_files_of_any_bytes_are_read_or_named(tmp_path_factory, name, raw):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a.png").touch()
    (folder / name).write_bytes(raw)
    try:
        found = read_captions(folder, ["a.png"])
    except UserError as error:
        assert name in str(error)  # noqa: PT017
        return
    caption = found.captions["a.png"]
    assert all(text and text == text.strip() and not {*"\n\r\0\x85\u2028"} & {*text} for text in caption.texts)
    assert 0 <= caption.repeats <= 100
    json.dumps([caption.texts, [note.to_json() for note in found.notes]], ensure_ascii=False).encode()


def run() -> dict:
    photo = Photo(path="/a.png", sha256="ab", width=64, height=64, caption="mysks")
    made = Run(
        name="toy",
        settings=Settings.of(
            method="dreambooth", token="mysks", steps=1, batch_size=1, learning_rate=1e-6, seed=0, precision="fp32"
        ),
        dataset=Dataset(photos=(photo,), resolution=64, warnings=(message("the same photo as {name}", name="{b}.png"),)),
        base_fingerprint="cd",
        export_path="/toy.safetensors",
        tokenizer_path="/tokenizer",
    )
    return json.loads(json.dumps(made.to_json()))


SETTINGS = Settings(method="dreambooth", token="mysks")
IN_RUN_JSON = [
    *((field,) for field in run()),
    *(("settings", field) for field in asdict(SETTINGS)),
    *(("settings", group, field) for group, kind in GROUPS.items() for field in asdict(kind())),
    *(("dataset", field) for field in run()["dataset"]),
    ("dataset", "photos", 0),
    ("dataset", "warnings", 0),
    *(("dataset", "warnings", 0, field) for field in ("template", "values")),
]
"""Where a foreign run.json may hold something else: the keys that lead there."""


@given(JSON, st.sampled_from(IN_RUN_JSON))
def test_a_foreign_run_json_is_read_or_refused(value, keys):
    data = run()
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    assert keys[-1] in inner or isinstance(inner, list)
    inner[keys[-1]] = value
    for given_data in (data, value):
        with suppress(ValueError):
            assert isinstance(Run.from_json(given_data), Run)


FIELDS = ("phase", "total", "done", "loss", "seconds_left", "memory", "step", "prompt", "file", "message")
EVENTS = st.builds(
    lambda kind, values: {"event": kind, **values},
    st.sampled_from([*KINDS, "unknown"]) | JSON,
    st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["training", 10**400, float("nan")])),
)


@given(st.one_of(TEXT, JSON.map(json.dumps), EVENTS.map(json.dumps)))
def test_a_line_of_the_worker_is_an_event_or_nothing(line):
    event = decode(line)
    assert event is None or is_dataclass(event)
    if isinstance(event, Progress):
        assert isinstance(event.done, int)
        assert isinstance(event.phase, str)


MESSAGES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, "{a}", "{0}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "template": st.lists(
                    st.sampled_from([*"{}!:.[]dfgr0a", "{a}", "{a!r}", "{b:.1f}", "{a.b}", "{}"]), max_size=6
                ).map("".join),
                "values": st.dictionaries(st.sampled_from(["a", "b", "", "0", "a.b", "a[0]"]), inner, max_size=3),
            }
        )
    ),
    max_leaves=8,
)


@settings(max_examples=400)
@given(MESSAGES)
def test_a_foreign_message_is_read_or_refused(data):
    with suppress(ValueError):
        read = Message.from_json(data)
        assert isinstance(str(read), str)
        assert str(Message.from_json(json.loads(json.dumps(read.to_json())))) == str(read)
    line = json.dumps({"event": "warning", "message": data})
    assert decode(line) is None or str(decode(line).message) is not None


LINES = st.lists(JSON.map(json.dumps), max_size=3).map(lambda lines: "\n".join(lines).encode())


@given(st.one_of(st.binary(max_size=200), LINES))
def test_metrics_of_any_bytes_are_numbers_by_step(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_bytes(raw + b'\n{"step": 3, "loss": 0.5}\n{"step": 4, "lo')
    assert read_metrics(path)[-1] == {"step": 3, "loss": 0.5}


def originals() -> list[bytes]:
    """Small pictures of every format and kind that we read."""
    picture = Image.effect_noise((40, 30), 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (picture.convert("RGB"), "JPEG", {"exif": exif}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture.convert("RGB"), "JPEG", {"progressive": True}),
        (picture.convert("RGBA"), "PNG", {}),
        (picture.convert("P"), "PNG", {"transparency": 3}),
        (picture.convert("I;16"), "PNG", {}),
        (picture.convert("1"), "PNG", {}),
        (picture.convert("RGB"), "WEBP", {"lossless": True}),
        (picture.convert("RGB"), "WEBP", {"save_all": True, "append_images": [picture.convert("RGB")]}),
        (picture.convert("RGB"), "BMP", {}),
        (picture.convert("P"), "BMP", {}),
        (picture.convert("P"), "GIF", {"save_all": True, "append_images": [picture.convert("P")]}),
        (picture.convert("RGB"), "TIFF", {"compression": "tiff_lzw"}),
        (picture.convert("I;16"), "TIFF", {}),
        (picture.convert("RGB"), "AVIF", {}),
        (picture.convert("RGB"), "PNG", {"icc_profile": rgb_profile(DISPLAY_P3)}),
    ]
    encoded = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        encoded.append(buffer.getvalue())
    return encoded


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Bytes changed, most often in the header; cut; doubled; or with a run of one value."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 2, 8, 40))):
        place = rng.randrange(min(len(data), rng.choice((64, len(data)))))
        kind = rng.randrange(5)
        if kind <= 1:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[place : place + rng.randrange(1, 9)]
        elif kind == 3:
            data[place:place] = bytes([rng.randrange(256)]) * rng.randrange(1, 9)
        else:
            data[place : place + 4] = rng.randbytes(4)
        data = data or bytearray(b"\0")
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about metadata
def test_damaged_pictures_are_decoded_or_named():
    rng, kinds = random.Random(0), originals()
    counts, slowest = {"decoded": 0, "named": 0}, 0.0
    for number in range(FUZZED):
        raw = damaged(kinds[number % len(kinds)], rng)
        began = time.monotonic()
        try:
            image = decode_photo(raw)
            assert image.mode == "RGB"
            counts["decoded"] += 1
        except ValueError:
            counts["named"] += 1
        slowest = max(slowest, time.monotonic() - began)
    print(f"\n{FUZZED} damaged pictures: {counts}, the slowest took {slowest:.2f} s")
    assert min(counts.values()) > FUZZED // 20  # both ways are tried


@pytest.mark.parametrize("size", [(1, 1), (30_000, 10), (10, 30_000)])
def test_extreme_shapes_are_framed(size):
    buffer = io.BytesIO()
    Image.new("RGB", size, "green").save(buffer, "PNG")
    image = decode_photo(buffer.getvalue())
    for crop in ("center", "top", "pad", "bucket"):
        dataset = Dataset(photos=(), resolution=128, crop=crop, view_jitter=0.3, variants=2)
        photo = Photo(path="/a.png", sha256="ab", width=size[0], height=size[1], caption="")
        assert {dataset.view(image, photo, number).size for number in (0, 1)} == {dataset.frame_size(photo)}


def test_other_formats_in_disguise_are_refused():
    """Pillow would hand an EPS to Ghostscript."""
    for raw in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n", b"GIF89a" + bytes(40)):
        with pytest.raises(ValueError, match=r"not an image|a kind of GIF"):
            decode_photo(raw)
