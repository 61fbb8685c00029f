"""What of the files that a user drops on the loader becomes a folder of photos, and what it is called. Plain data, no torch."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..run.messages import Message, UserError, message
from ..run.names import check_name
from .folder_files import (
    CAPTION_SUFFIXES,
    PHOTO_SUFFIXES,
    TABLE_SUFFIXES,
    is_hidden,
    lower_suffix,
    names_beside,
    place_of_photo,
    same_name,
)
from .named import listed

TAKEN = PHOTO_SUFFIXES | {*CAPTION_SUFFIXES} | TABLE_SUFFIXES
PLAIN_NAME = "photos"
"""What a folder is called that its files give no name."""
LONGEST = 48
"""So many letters of a dropped folder's name are kept."""


@dataclass(frozen=True)
class Upload:
    """The files that are taken of those that were dropped."""

    places: dict[str, str]
    """The path of each file, as it was dropped -> its path below the folder that they go into."""
    wish: str
    """What the new folder is to be called."""
    photos_in: str
    """The folder below that one into which most photos go; "" for that itself."""
    notes: tuple[Message, ...]


def choose_files(paths: Sequence[str], into: Path | None = None) -> Upload:
    """Return which files are taken, and their places in a new folder, or among the files of the folder `into`.

    Taken are photos, and captions along with them, or alone where there may be photos. Raises UserError when there are none.
    """
    visible = sorted(path for path in paths if not any(map(is_hidden, re.split(r"[/\\]", path))))
    photos = [path for path in visible if lower_suffix(path) in PHOTO_SUFFIXES]
    taken = [path for path in visible if lower_suffix(path) in TAKEN]
    if not (photos or (into and taken)):
        raise UserError(
            "None of these files is a photo that can be read: {names}. Drop jpg, png, webp or tiff files.",
            names=_names(visible or paths),
        )
    tops = {path.partition("/")[0] if "/" in path else "" for path in taken}
    top = tops.pop() if len(tops) == 1 else ""
    wished = {path: path.removeprefix(f"{top}/") for path in taken}
    places = _free_places(wished, into) if into else wished
    counts = Counter(_folder(wished[path]) for path in photos)
    photos_in = min(counts, key=lambda folder: (-counts[folder], folder.count("/") + bool(folder), folder), default="")
    notes = []
    others = [path for path in visible if path not in taken]
    if others:
        notes.append(message("Left out, because they are no photos that can be read: {names}.", names=_names(others)))
    if left := [path for path in taken if path not in places]:
        notes.append(
            message(
                "Left out, because the folder has captions or masks of that name, or other photos that they would be taken for: "
                "{names}.",
                names=_names(left),
            )
        )
    return Upload(places, top or _without_number(photos[0] if photos else ""), photos_in, tuple(notes))


def _free_places(wished: dict[str, str], root: Path) -> dict[str, str]:
    """Return the places of files below a folder that has some: no photo there gets the caption of a new one.

    A photo gets another name where there is a file of its name with any ending, its captions with it. Captions alone, which are
    meant for the photos there, are left out where these have some; so is a table where a photo of its folder is renamed.
    """
    folders = sorted({_folder(place) for place in wished.values()})
    return {path: place for folder in folders for path, place in _free_in(folder, wished, _names_in(root / folder)).items()}


def _free_in(folder: str, wished: dict[str, str], there: Collection[str]) -> dict[str, str]:
    """Return the free places of the files that go into one folder, which has those `there`."""
    names = {path: PurePosixPath(place).name for path, place in wished.items() if _folder(place) == folder}
    photos = names_beside([name for name in (*names.values(), *there) if lower_suffix(name) in PHOTO_SUFFIXES])
    of_masks = {name: at for name in (*names.values(), *there) if (at := _place_in_mask(name, photos))}
    new = {same_name(_stem(n)): "" for n in names.values() if lower_suffix(n) in PHOTO_SUFFIXES and n not in of_masks}
    taken = {same_name(_stem(unicodedata.normalize("NFC", name)[slice(*of_masks.get(name, (0, None)))])) for name in there}
    for stem in new:
        numbered = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        free = next(name for name in numbered if name not in taken and (name == stem or name not in new))
        new[stem] = free.removeprefix(stem)
        taken.add(free)
    places = {}
    for path, name in names.items():
        start, end = of_masks.get(name, (0, len(name)))
        if name in of_masks:
            name = unicodedata.normalize("NFC", name)
        stem, is_table = _stem(name[start:end]), lower_suffix(name) in TABLE_SUFFIXES
        if same_name(stem) in new and not is_table:
            end = start + len(stem)
            name = name[:end] + new[same_name(stem)] + name[end:]
        elif same_name(name) in map(same_name, there) or (is_table and any(new.values())):
            continue
        places[path] = f"{folder}/{name}" if folder else name
    return places


def _place_in_mask(name: str, photos: Collection[str]) -> tuple[int, int] | None:
    """Return where the photo's name stands in that of its mask or the like, also in that of the mask's caption."""
    return place_of_photo(name, photos) if lower_suffix(name) in PHOTO_SUFFIXES | {*CAPTION_SUFFIXES} else None


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def make_folder(root: Path, wish: str) -> str:
    """Make a new folder below the root and return its name.

    It is another one than all that are there, also when two users drop photos of one name at once.
    """
    wish = _file_name(wish)
    root.mkdir(parents=True, exist_ok=True)
    for name in itertools.chain([wish], (f"{wish}-{number}" for number in itertools.count(2))):
        with suppress(FileExistsError):
            (root / name).mkdir()
            break
    return name


def _file_name(wish: str) -> str:
    """Return the wish as a name that a file can have on every system."""
    letters = unicodedata.normalize("NFC", wish)
    plain = "".join(letter if unicodedata.category(letter)[0] in "LNM" or letter in " .-_" else "-" for letter in letters)
    with suppress(UserError):
        return check_name(plain[:LONGEST].strip(" .-"))
    return PLAIN_NAME


def _without_number(path: str) -> str:
    """Return what a camera's or a burst's file names have in common: "IMG" of "IMG_2041.jpg", "toy" of "toy (3).png"."""
    return PurePosixPath(path).stem.rstrip("0123456789-_ ()")


def _stem(name: str) -> str:
    """Return what a photo's name has in common with those of its captions: "a" of "a.jpg", "a.txt" and "a.jpg.txt"."""
    while lower_suffix(name) in PHOTO_SUFFIXES | {*CAPTION_SUFFIXES}:
        name = PurePosixPath(name).stem
    return name


def _names(paths: Sequence[str]) -> Message | Sequence[str | Message]:
    return listed([PurePosixPath(path).name for path in paths])


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
