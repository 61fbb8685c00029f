"""The files of a folder of photos: which are photos, which are not, and where they really lie. Plain data, no torch."""

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..run.messages import Message, UserError, message
from .image_file import image_kind

PHOTO_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib"),
    *(".gif", ".tif", ".tiff", ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
}
RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
FOREIGN_SUFFIXES = {
    *(".jxl", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm", ".jxr", ".wdp", ".hdp"),
    *(".pnm", ".pbm", ".pgm", ".ppm", ".pam", ".pfm", ".pcx", ".dcx", ".tga", ".sgi", ".dds", ".xbm", ".xpm", ".qoi"),
    *(".exr", ".hdr"),
    *(".psd", ".psb", ".xcf", ".kra", ".clip", ".afphoto", ".procreate"),
}
"""Formats that folders of photos often hold and that we cannot read: named, rather than silently passed over."""
DRAWN_SUFFIXES = {".ico", ".cur", ".icns", ".svg", ".svgz", ".eps", ".wmf", ".emf"}
"""Icons and drawings: no photos, so that they are passed over with a word, and do not stop those that lie beside them."""
COMPANIONS = ("-masklabel", "-condlabel")
"""How OneTrainer ends the names of masks and of conditioning pictures."""
_KINDS = (
    r"(?:masks?|msk|mask_?(?:label|image)|cond_?label|matte|trimap|alpha|depth(?:_?map|_anything)?|canny|cond|conditioning|"
    r"control(?:net)?|edges|(?:open|dw|dense)?pose|seg(?:m|_?map|mentation)?|sketch|lineart|softedge|scribble|hed|mlsd|"
    r"normal(?:_?map|bae))"
)
_BESIDE_A_PHOTO = re.compile(rf"(.+)[-_.\s]{_KINDS}(?:[-_.\s]*\(?\d+\)?)?\s*|{_KINDS}[-_.\s](.+)", re.IGNORECASE)
"""How others do; such a picture counts as one only beside the photo that it is named after: a_mask_0, mask_a, a mask (1)."""
_EDGES = "-_. "
CAPTION_SUFFIXES = (".txt", ".caption")
TABLE_SUFFIXES = {
    *(".jsonl", ".json", ".csv", ".tsv", ".parquet", ".yaml", ".yml", ".xml", ".xls", ".xlsx", ".ods"),
    *(".cap", ".tags", ".text", ".rtf", ".doc", ".docx", ".odt"),
}
"""Files of the whole folder, and others in which programs keep captions: what of them is not read is told by name."""
_OTHER_SYSTEMS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "thumbs.db", "desktop.ini"}
"""What systems and drives put beside one's own files."""
MOST_STRANGERS = 500
"""So many files without a photo's name are looked into."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder by what they are, each sorted by name."""

    photos: tuple[str, ...]
    """By their names; whether they can be read is not known yet."""
    foreign: tuple[tuple[str, Message], ...]
    """Pictures that cannot be read, and why."""
    companions: tuple[str, ...]
    """Masks and the like of other trainers."""
    sources: tuple[str, ...]
    """Pictures that cannot be read, such as raw files, beside photos that are called so."""
    strangers: tuple[str, ...]
    """Pictures by their first bytes, but not by their names."""
    captions: tuple[str, ...]
    """Files with captions, each of one photo."""
    tables: tuple[str, ...]
    """Files that may hold captions of the whole folder."""


def folder_files(folder: Path) -> FolderFiles:
    """Return the files of a folder, hidden ones left out."""
    photos, foreign, strangers, captions, tables = [], [], [], [], []
    for name in _listed(folder):
        path, suffix = folder / name, lower_suffix(name)
        if suffix in PHOTO_SUFFIXES | RAW_SUFFIXES | FOREIGN_SUFFIXES:
            reason = _why_not(folder, path, suffix)
            if path.is_dir():
                continue
            if reason:
                foreign.append((name, reason))
            else:
                photos.append(name)
        elif suffix in TABLE_SUFFIXES | {*CAPTION_SUFFIXES}:
            if path.is_file() or path.is_symlink():
                (captions if suffix in CAPTION_SUFFIXES else tables).append(name)
        elif len(strangers) < MOST_STRANGERS and (suffix in DRAWN_SUFFIXES or _is_picture(folder, path)):
            strangers.append(name)
    companions = _companions([*photos, *(name for name, _ in foreign)])
    photos = [name for name in photos if name not in companions]
    stems = {same_name(Path(name).stem) for name in photos}
    sources = [name for name, _ in foreign if same_name(Path(name).stem) in stems and lower_suffix(name) not in PHOTO_SUFFIXES]
    passed_over = {*companions, *sources}
    foreign = [(name, reason) for name, reason in foreign if name not in passed_over]
    return FolderFiles(
        photos=tuple(photos),
        foreign=tuple(foreign),
        companions=tuple(sorted(companions)),
        sources=tuple(sources),
        strangers=tuple(strangers),
        captions=tuple(captions),
        tables=tuple(tables),
    )


def lower_suffix(name: str) -> str:
    """Return the ending of a file's name in small letters: ".jpg" of "toys/IMG_1.JPG"."""
    return Path(name).suffix.lower()


def _companions(names: Sequence[str]) -> set[str]:
    """Return which of the pictures of a folder are masks and the like by their names."""
    photos = names_beside(names)
    return {name for name in names if place_of_photo(name, photos)}


def names_beside(names: Sequence[str]) -> set[str]:
    """Return what masks and the like of these photos may be named after."""
    return {same_name(name).strip(_EDGES) for photo in names for name in (photo, Path(photo).stem)}


def place_of_photo(name: str, photos: Collection[str]) -> tuple[int, int] | None:
    """Return where the name of the photo stands in that of its mask or the like; None for a picture that is none of these.

    In the name with its accents composed. `photos`: what `names_beside` gives.
    """
    stem = unicodedata.normalize("NFC", Path(name).stem)
    label = next((ending for ending in COMPANIONS if same_name(stem).endswith(ending)), "")
    if label:
        return 0, len(stem) - len(label)
    match = _BESIDE_A_PHOTO.fullmatch(stem)
    which = match and (1 if match[1] else 2)
    return match.span(which) if match and which and same_name(match[which]).strip(_EDGES) in photos else None


def _listed(folder: Path) -> list[str]:
    try:
        os.stat(os.path.join(folder, "."))  # it may be listed, but its files not be opened
        return sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError("The folder {name!r} cannot be read ({reason}).", name=folder.name, reason=reason) from None


def photo_names(folder: Path) -> list[str]:
    """Return the names of the folder's files that are read as photos, sorted."""
    return list(folder_files(folder).photos)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted, hidden ones left out; none where it cannot be read."""
    try:
        paths = sorted(folder / entry.name for entry in os.scandir(folder) if not is_hidden(entry.name))
    except OSError:
        return []
    return [path for path in paths if os.path.isdir(path)]  # False where it may not be asked; pathlib's would raise


def count_photos(folder: Path) -> int:
    """Return how many files of a folder are read as photos, by their names; 0 where it cannot be read."""
    try:
        entries = [entry for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in PHOTO_SUFFIXES]
        entries = [entry for entry in entries if not is_hidden(entry.name) and shown_name(entry.name) == entry.name]
        names = [e.name for e in entries if e.is_file(follow_symlinks=False) or is_inside(folder, Path(e.path))]
    except OSError:
        return 0
    return len(names) - len(_companions(names))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is none that the user knows of: a hidden one, or one that a system has put there."""
    return name.startswith(".") or name.lower() in _OTHER_SYSTEMS


def is_inside(folder: Path, path: Path) -> bool:
    """Return whether the path, directly in the folder, is an existing file that lies below it, links followed."""
    try:
        return path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(folder.resolve()))
    except (OSError, ValueError, RuntimeError):  # a link to itself
        return False


def read_inside(folder: Path, name: str) -> bytes:
    """Return the bytes of a file for which `is_inside` holds; a link that is put in its place meanwhile is not followed."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open((folder / name).resolve(), flags), "rb") as file:
        return file.read()


def same_name(name: str) -> str:
    """Return what two names have in common that differ in case or in how their accents are written alone."""
    return unicodedata.normalize("NFC", name).casefold()


def shown_name(name: str) -> str:
    """Return a file's name as it can be written: what is not Unicode in it becomes a question mark."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _why_not(folder: Path, path: Path, suffix: str) -> Message | None:
    """Return why a picture cannot be read, as far as its name tells."""
    if not path.is_symlink() and not path.is_file():
        return message("a pipe, a socket or a device, and no file: remove it")
    if not is_inside(folder, path):
        return message("a link that leads out of the folder, or nowhere: put the file itself there")
    if shown_name(path.name) != path.name:
        return message("its name is not UTF-8: rename it")
    if suffix in RAW_SUFFIXES:
        return message("a camera's raw file: develop it to jpg first")
    return message("unsupported format") if suffix in FOREIGN_SUFFIXES else None


def _is_picture(folder: Path, path: Path) -> bool:
    return is_inside(folder, path) and image_kind(_head(path)) not in ("", "BMP", "SVG")  # "BM" begins words, too


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
