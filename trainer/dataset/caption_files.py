"""Captions on disk: files beside the photos, and metadata files of the whole folder. Plain data, no torch."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..run.files import DISK_FULL, partial_file
from ..run.memory_errors import out_of_memory
from ..run.messages import Message, MessageError, UserError, message
from .folder_files import CAPTION_SUFFIXES, FolderFiles, folder_files, is_inside, lower_suffix, read_inside, same_name, shown_name
from .metadata_files import MAX_ALTERNATIVES, Caption, match, read_entries
from .named import listed
from .text_file import LINE_END, clean, decode_text

MAX_CAPTION = 20_000
"""Characters that a caption may have when it is written."""
MAX_CAPTION_FILE_BYTES, MAX_TABLE_BYTES = 1_000_000, 50_000_000
"""Of a file beside a photo, and of one for the whole folder: 5,000 for each of 10,000 photos."""
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.json", "meta_cap.json")
"""Where captions of the whole folder are looked for; the first that has one of a photo counts."""

_JOINED = re.compile("^\ufeff+", re.MULTILINE)
"""Marks of the byte order in the middle of files that were joined."""


@dataclass(frozen=True)
class CaptionSet:
    """The captions of photos by their file names, and what the user should know of the files."""

    captions: dict[str, Caption]
    settled: frozenset[str]
    """Photos that have a file beside them, be it empty: what it says is what the user wants."""
    shared: dict[str, str]
    """By photo the caption file that it shares with another photo."""
    notes: tuple[Message, ...]


class ConflictError(MessageError):
    """The caption on disk is no longer the one that was to be replaced."""

    def __init__(self, caption: str):
        super().__init__("The caption was changed elsewhere: it is now {caption!r}.", caption=caption)
        self.caption = caption
        """What it is now."""


def read_captions(folder: Path, names: Sequence[str], files: FolderFiles | None = None) -> CaptionSet:
    """Return the captions of the photos of these names: those of a file beside it, else its entry in a metadata file.

    Raises UserError for a file that is too large, of an unknown encoding, or no metadata file.
    """
    files = files or folder_files(folder)
    photos = list(dict.fromkeys([*files.photos, *names]))
    notes: list[Message] = []
    tables = _tables(files)
    known = _read_metadata(folder, tables, photos, notes)
    sidecars = _sidecars(photos, files.captions)
    counts = Counter(sidecars.values())
    captions, settled, texts = {}, set(), {}
    for name in names:
        caption, sidecar = known.get(name, Caption()), sidecars.get(name)
        if sidecar and is_inside(folder, folder / sidecar):
            if sidecar not in texts:  # two photos may share it
                texts[sidecar] = _alternatives(_read_text(folder, sidecar, notes), sidecar)
            caption = Caption(texts[sidecar], caption.repeats)
            settled.add(name)
        captions[name] = caption
    shared = {name: sidecar for name, sidecar in sidecars.items() if counts[sidecar] > 1}
    used = {*sidecars.values(), *tables.values()}
    return CaptionSet(captions, frozenset(settled), shared, (*notes, *_file_notes(folder, files, used, shared)))


def write_caption(folder: Path, name: str, text: str, was: str) -> None:
    """Write a photo's captions, one a line, beside it, whole or not at all.

    Raises ConflictError when they are no longer `was`, UserError for a text that is too long or a file that cannot be written.
    """
    if len(text) > MAX_CAPTION:
        raise UserError("The caption has {length} characters; at most {most} are allowed.", length=len(text), most=MAX_CAPTION)
    files = folder_files(folder)
    now = read_captions(folder, [name], files).captions[name].text
    if now != "\n".join(_alternatives(was, name)):
        raise ConflictError(now)
    lines, file = "\n".join(_alternatives(text, name)) + "\n", _sidecar_to_write(files, name)
    try:
        with partial_file(folder / file) as partial:
            partial.write_text(lines, encoding="utf-8")
    except OSError as error:
        if out_of_memory(error) or error.strerror == str(DISK_FULL):
            raise
        raise UserError(
            "The caption cannot be written to {file} ({reason}). Give ComfyUI the right to write to that folder, or the photo a "
            "shorter name.",
            file=file,
            reason=error.strerror or str(error),
        ) from None


def _sidecar_to_write(files: FolderFiles, name: str) -> str:
    """Return the file for a photo's caption: <name>.txt, or with the photo's suffix in it where another photo has that name."""
    stem = same_name(Path(name).stem)
    photos = [same_name(photo) for photo in files.photos]
    alone = stem not in photos and [Path(photo).stem for photo in photos].count(stem) <= 1  # a.jpg.txt is that of a.jpg
    found = _sidecars(files.photos, files.captions).get(name, "")
    if found.lower().endswith(".txt") and (alone or same_name(found) == same_name(name + ".txt")):
        return found
    return f"{Path(name).stem}.txt" if alone else f"{name}.txt"


def _sidecars(photos: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Return the caption file of each photo that has one: of exactly its name, else of its name in other case.

    With a.jpg and a.jpg.png, a.jpg.txt is that of a.jpg alone.
    """
    exact, alike = {*files}, {same_name(file): file for file in files}
    endings = [(whole, suffix) for suffix in CAPTION_SUFFIXES for whole in (True, False)]
    names = {same_name(photo) for photo in photos}
    candidates = {
        photo: [
            (photo if whole else Path(photo).stem) + suffix
            for whole, suffix in endings
            if whole or same_name(Path(photo).stem) not in names
        ]
        for photo in photos
    }
    found = {}
    for photo, wanted in candidates.items():
        file = next((file for file in wanted if file in exact), None)
        if file:
            found[photo] = file
    taken = {*found.values()}
    for photo, wanted in candidates.items():
        file = next((alike[same_name(file)] for file in wanted if same_name(file) in alike), None)
        if file and photo not in found and file not in taken:
            found[photo] = file
    return found


def _tables(files: FolderFiles) -> dict[str, str]:
    """Return the metadata files that there are, by their names in METADATA: of exactly that name, else in other case."""
    alike = {same_name(file): file for file in files.tables} | {file: file for file in files.tables}
    return {name: alike[name] for name in METADATA if name in alike}


def _file_notes(folder: Path, files: FolderFiles, used: set[str], shared: dict[str, str]) -> list[Message]:
    """Return what the user should know of the caption files, of which `used` are read."""
    notes = []
    outside = [file for file in (*files.captions, *files.tables) if not is_inside(folder, folder / file)]
    if outside:
        notes.append(message("Links that lead out of the folder were not read: {names}.", names=_names(outside)))
    if shared:
        notes.append(
            message(
                "Photos of one name share a caption: {names}. Where they need their own, call the files as in {example}.",
                names=listed([message("{name} ({reason})", name=n, reason=shared[n]) for n in sorted(shared)]),
                example=f"{min(shared)}.txt",
            )
        )
    refused = {same_name(Path(name).stem) for name, _ in files.foreign}  # what they are called is told of them
    unused = {*files.captions, *files.tables} - used - {*outside}
    unused = sorted(file for file in unused if same_name(Path(file).stem) not in refused)
    if unused:
        notes.append(message("Files that may hold captions, but are no photo's: {names}.", names=_names(unused)))
    return notes


def _names(names: Sequence[str]) -> Message | Sequence[str | Message]:
    return listed([shown_name(name) for name in names])


def _alternatives(text: str, name: str) -> tuple[str, ...]:
    """Return the captions of a text, one a line. Raises UserError for more than can be."""
    texts = tuple(dict.fromkeys(filter(None, map(clean, LINE_END.split(text)))))
    if len(texts) > MAX_ALTERNATIVES:
        raise UserError(
            "{name} has {count} lines; each is a caption of the whole photo, and at most {most} are read. Make one line of "
            "them, or fewer.",
            name=name,
            count=len(texts),
            most=MAX_ALTERNATIVES,
        )
    return texts


def _read_metadata(folder: Path, tables: dict[str, str], photos: Sequence[str], notes: list[Message]) -> dict[str, Caption]:
    """Return the captions of all metadata files by photo, and add what the user should know of them to the notes."""
    known: dict[str, Caption] = {}
    for name, file in tables.items():
        if is_inside(folder, folder / file):
            try:
                text = _read_text(folder, file, notes)
            except UserError as error:
                if not name.endswith(".json"):
                    raise
                notes.append(error.message)  # other programs have files of this name, too
                continue
            entries, note = read_entries(name, text)
            found, more = match(name, entries, folder, photos)
            known = {**found, **known}
            notes += [*([note] if note else []), *more]
    return known


def _read_text(folder: Path, name: str, notes: list[Message]) -> str:
    most = MAX_CAPTION_FILE_BYTES if lower_suffix(name) in CAPTION_SUFFIXES else MAX_TABLE_BYTES
    if (folder / name).stat().st_size > most:
        raise UserError(
            "{name} is larger than {megabytes} MB, too large for captions.",
            name=shown_name(name),
            megabytes=most // 10**6,
        )
    try:
        raw = read_inside(folder, name)
    except OSError as error:
        if out_of_memory(error):
            raise
        reason = message("file system error: {reason}", reason=error.strerror or str(error))
        raise UserError("{name} cannot be read: {reason}", name=shown_name(name), reason=reason) from None
    text, note = decode_text(raw, shown_name(name))
    if note:
        notes.append(note)
    return _JOINED.sub("", text)
