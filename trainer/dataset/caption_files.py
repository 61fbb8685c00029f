"""Captions on disk: `<name>.txt` beside the photo, and `metadata.jsonl`. Plain data, no torch."""

import codecs
import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..run.files import partial_file
from ..run.messages import MessageError, UserError

MAX_CAPTION = 20_000
"""Characters that a caption may have when it is written."""
MAX_CAPTION_FILE_BYTES = 1_000_000
MAX_REPEATS = 100


@dataclass(frozen=True)
class Caption:
    """What is written about one photo."""

    text: str = ""
    """Empty when there is none."""
    repeats: int = 1
    """How often the photo is seen for each time that one with one repeat is."""


class ConflictError(MessageError):
    """The caption on disk is no longer the one that was to be replaced."""

    def __init__(self, caption: str):
        super().__init__("The caption was changed elsewhere: it is now {caption!r}.", caption=caption)
        self.caption = caption
        """What it is now."""


def read_captions(folder: Path, names: list[str]) -> dict[str, Caption]:
    """Return the caption of each file name: `<name>.txt` beside the photo, else its line of `metadata.jsonl`.

    Raises UserError for a file that is too large, or that is no metadata.jsonl.
    """
    metadata = _read_metadata(folder / "metadata.jsonl")
    captions = {}
    for name in names:
        sidecar = (folder / name).with_suffix(".txt")
        known = metadata.get(name, Caption())
        text = _read_text(sidecar) if sidecar.is_file() else known.text
        captions[name] = replace(known, text=" ".join(text.split()))
    return captions


def write_caption(folder: Path, name: str, text: str, was: str) -> None:
    """Write a photo's caption beside it, whole or not at all.

    Raises ConflictError when the caption is no longer `was`, UserError for a text that is too long.
    """
    text = " ".join(text.split())
    if len(text) > MAX_CAPTION:
        raise UserError("The caption has {length} characters; at most {most} are allowed.", length=len(text), most=MAX_CAPTION)
    now = read_captions(folder, [name])[name].text
    if now != " ".join(was.split()):
        raise ConflictError(now)
    with partial_file((folder / name).with_suffix(".txt")) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _read_metadata(path: Path) -> dict[str, Caption]:
    """Return the captions of a metadata.jsonl (file_name, text, repeats a line) by file name; none when there is no file."""
    captions: dict[str, Caption] = {}
    if not path.is_file():
        return captions
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            caption = Caption(str(entry["text"]), int(entry.get("repeats", 1)))
            if not 1 <= caption.repeats <= MAX_REPEATS:
                raise ValueError
            captions[str(entry["file_name"])] = caption
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise UserError(
                'Line {number} of metadata.jsonl is not of the form {{"file_name": "a.jpg", "text": "a caption"}}, with '
                '"repeats": 2 (1 to {most}) where a photo counts more. Correct or remove it.',
                number=number,
                most=MAX_REPEATS,
            ) from None
    return captions


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_CAPTION_FILE_BYTES:
        raise UserError(
            "{name} is larger than {megabytes} MB, too large for captions.",
            name=path.name,
            megabytes=MAX_CAPTION_FILE_BYTES // 10**6,
        )
    return _decode(path.read_bytes())


def _decode(raw: bytes) -> str:
    """Return the text of a caption file: UTF-8 or UTF-16 by their marks, else UTF-8, else Windows-1252."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
