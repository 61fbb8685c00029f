"""Captions of a whole folder in one file: metadata.jsonl, metadata.csv, and kohya's metadata.json. Plain data, no torch."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..run.messages import Message, UserError, message
from .folder_files import same_name, shown_name
from .named import listed
from .text_file import LINE_END, clean

MAX_REPEATS = 100
MAX_ALTERNATIVES = 100
FILE_KEYS = ("file_name", "image", "file", "filename", "path")
TEXT_KEYS = ("text", "caption", "prompt")
_BEFORE_COLUMNS = re.compile(r"(?:[\s,;]*[\r\n])?(?:(?i:sep)=([,;\t])[\s,;]*[\r\n])?")
"""Of a spreadsheet: empty rows, and the row in which Excel is told the separator."""


@dataclass(frozen=True)
class Caption:
    """What is written about one photo."""

    texts: tuple[str, ...] = ()
    """One, or alternatives; none when there is no caption."""
    repeats: int = 0
    """How often the photo is seen for each time that one with one repeat is; 0 where nothing is written about it."""

    @property
    def text(self) -> str:
        """Return the captions, one a line."""
        return "\n".join(self.texts)


@dataclass(frozen=True)
class Entry:
    """What a file says of one photo."""

    place: str
    """The number of the line, or the key."""
    file_name: str
    caption: Caption


class _WrongEntryError(Exception):
    """An entry is not of a form that is read."""


def read_entries(name: str, text: str) -> tuple[list[Entry], Message | None]:
    """Return the entries of a metadata file by its name, and a note. Raises UserError that names a line that is wrong."""
    if name.endswith(".jsonl"):
        return _lines(text)
    return _rows(text) if name.endswith(".csv") else _kohya(name, text)


def match(name: str, entries: Sequence[Entry], folder: Path, photos: Sequence[str]) -> tuple[dict[str, Caption], list[Message]]:
    """Return the caption of each photo that the entries of a file name, and notes about the others."""
    found: dict[str, Caption] = {}
    unmatched, counts = [], Counter()
    names = _Names(photos)
    if name.endswith(".json") and all(names.photo_of(entry.file_name, folder.name) is None for entry in entries):
        entries = [replace(entry, file_name=_parts(entry.file_name)[-1]) for entry in entries]  # the folder was moved since
    for entry in entries:
        photo = names.photo_of(entry.file_name, folder.name)
        if photo is None:
            missing = shown_name(entry.file_name)
            unmatched.append(message("{name} ({reason})", name=missing, reason=entry.place) if entry.place else missing)
        else:
            counts[photo] += 1
            found[photo] = entry.caption
    notes = []
    if unmatched:
        notes.append(message("{file} names no photo of this folder with: {names}.", file=name, names=listed(unmatched)))
    several = [photo for photo, count in counts.items() if count > 1]
    if several:
        notes.append(message("{file} has several entries for {names}. The last one counts.", file=name, names=listed(several)))
    return found, notes


def caption_of(entry: dict[str, Any]) -> Caption:
    """Return the caption of an entry, its keys in lower case: one text, or a list of alternatives. Raises _WrongEntryError."""
    values = [entry[key] for key in TEXT_KEYS if key in entry]
    if not values:
        raise _WrongEntryError
    given = next((value for value in values if not _is_blank(value)), None)
    texts = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(text, str) for text in texts) or len(texts) > MAX_ALTERNATIVES:
        raise _WrongEntryError
    repeats = entry.get("repeats")
    if repeats is None:
        return Caption(_texts(texts))
    try:
        number = float(repeats)
    except (ValueError, TypeError, OverflowError):
        raise _WrongEntryError from None
    if isinstance(repeats, bool) or number not in range(1, MAX_REPEATS + 1):
        raise _WrongEntryError
    return Caption(_texts(texts), int(number))


def _is_blank(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_blank, value))
    return value is None or (isinstance(value, str) and not clean(value))


def _texts(given: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that say something, each once."""
    return tuple(dict.fromkeys(filter(None, map(clean, given))))


def _with_plain_keys(data: Any) -> dict[str, Any]:
    """Return an entry with its keys in lower case; of two that are alike then, the one that was so counts."""
    if not isinstance(data, dict):
        raise _WrongEntryError
    return {key.strip().lower(): value for key, value in data.items()} | data


def _entry(place: str, data: dict[str, Any]) -> Entry:
    names = [data[key] for key in FILE_KEYS if key in data]
    if not names or not isinstance(names[0], str):
        raise _WrongEntryError
    return Entry(place, names[0], caption_of(data))


def _lines(text: str) -> tuple[list[Entry], Message | None]:
    """Read the lines of metadata.jsonl; one without a text is a photo without a caption."""
    entries, untold = [], []
    for number, line in enumerate(LINE_END.split(text), 1):
        if not line.strip():
            continue
        try:
            data = _with_plain_keys(json.loads(line))
            untold += [] if {*data} & {*TEXT_KEYS} else [str(number)]
            entries.append(_entry(str(number), {"text": None, **data}))
        except (ValueError, RecursionError, _WrongEntryError):
            raise UserError(
                'Line {number} of metadata.jsonl is not of the form {{"file_name": "a.jpg", "text": "a caption"}}, with '
                '"repeats": 2 (1 to {most}) where a photo counts more. Correct or remove it.',
                number=number,
                most=MAX_REPEATS,
            ) from None
    note = message("Lines of metadata.jsonl without a text, caption or prompt: {lines}.", lines=listed(untold))
    return entries, note if untold else None


def _rows(text: str) -> tuple[list[Entry], Message | None]:
    """Read the rows of metadata.csv; with other columns it is another program's, exiftool's for example."""
    entries = []
    before = _BEFORE_COLUMNS.match(text)
    assert before is not None  # it may be empty
    above, text = len(LINE_END.findall(before[0])), text[before.end() :]
    separator = before[1] or max(",;\t", key=LINE_END.split(text, maxsplit=1)[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        reader.fieldnames = _without_empty_end(reader.fieldnames or ())
        columns = {column.strip().lower() for column in reader.fieldnames}
        if not (columns & {*FILE_KEYS} and columns & {*TEXT_KEYS}):
            return [], message("metadata.csv was passed over: its first line does not name the columns file_name and text.")
        for row in reader:
            if _without_empty_end(row.get(None, ())):  # more cells than columns: a comma in a text without quotes
                raise _WrongEntryError
            cells = {key.strip().lower(): value for key, value in row.items() if key and value}
            cells = {key: value for key, value in cells.items() if value.strip() or key != "repeats"}
            if cells:
                entries.append(_entry(str(above + reader.line_num), {"text": None, **cells}))
    except (csv.Error, _WrongEntryError) as error:
        raise UserError(
            "Line {number} of metadata.csv has no file_name, a text with a comma or a quote that is not in quotes, or repeats "
            "that are no number from 1 to {most}. Correct or remove it.",
            number=above + reader.line_num + isinstance(error, csv.Error),  # the row that it could not finish
            most=MAX_REPEATS,
        ) from None
    return entries, None


def _without_empty_end(cells: Sequence[str]) -> list[str]:
    """Return the cells of a row up to the last that has a text."""
    count = max((number for number, cell in enumerate(cells, 1) if cell.strip()), default=0)
    return list(cells[:count])


def _kohya(name: str, text: str) -> tuple[list[Entry], Message | None]:
    """Read {"path or stem": {"caption": ..., "tags": ...}}, or a list of what metadata.jsonl has in its lines."""
    ignored = message("{file} is not of a form that is read here, and was passed over.", file=name)
    try:
        data = json.loads(text)
        if isinstance(data, list):
            return [_entry(str(number), _with_plain_keys(item)) for number, item in enumerate(data, 1)], None
        entries = []
        for key, value in data.items() if isinstance(data, dict) else ():
            value = _with_plain_keys(value)
            if not {*value} & {*TEXT_KEYS, "tags"}:
                return [], ignored
            caption = caption_of({"text": None, **value})
            entries.append(Entry("", key, replace(caption, texts=_with_tags(caption.texts, value.get("tags")))))
        return entries, None if entries else ignored
    except (ValueError, RecursionError, _WrongEntryError):
        return [], ignored


def _with_tags(texts: tuple[str, ...], tags: Any) -> tuple[str, ...]:
    """Return the captions with kohya's tags, a text or a list, behind each; these alone where there is no caption."""
    tags = [tags] if isinstance(tags, str) else tags or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise _WrongEntryError
    behind = ", ".join(_texts(tags))
    return tuple(", ".join(filter(None, (text, behind))) for text in texts) or _texts([behind])


def _parts(file_name: str) -> list[str]:
    return [part for part in file_name.replace("\\", "/").split("/") if part not in ("", ".")] or [""]


class _Names:
    """The names of a folder's photos, to be found by."""

    def __init__(self, photos: Sequence[str]):
        self._photos = set(photos)
        self._by: tuple[dict[str, list[str]], ...] = ({}, {})  # by name, and by name without suffix
        for photo in photos:
            for found, key in zip(self._by, (photo, Path(photo).stem), strict=True):
                found.setdefault(same_name(key), []).append(photo)

    def photo_of(self, file_name: str, folder: str) -> str | None:
        """Return the photo that an entry names: by path or name, in any case, with or without its suffix."""
        *above, name = _parts(file_name)
        if above and same_name(above[-1]) != same_name(folder):
            return None
        if name in self._photos:
            return name
        return next((found[0] for by in self._by if len(found := by.get(same_name(name), [])) == 1), None)
