"""What of the files that a user drops on the loader becomes a folder of photos, and what it is called. Plain data, no torch."""

import itertools
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..run.messages import Message, UserError, message
from ..run.names import check_name
from .folder_files import CAPTION_SUFFIXES, PHOTO_SUFFIXES, TABLE_SUFFIXES
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
    """The path of each file, as it was dropped -> in which folder it goes below the new one; "" for that itself."""
    wish: str
    """What the new folder is to be called."""
    photos_in: str
    """Where the first photo goes."""
    notes: tuple[Message, ...]


def choose_files(paths: Sequence[str]) -> Upload:
    """Return which files are taken: photos, and captions along with them. Raises UserError when none of them is a photo."""
    visible = sorted(path for path in paths if not PurePosixPath(path).name.startswith("."))
    photos = [path for path in visible if _suffix(path) in PHOTO_SUFFIXES]
    others = [path for path in visible if _suffix(path) not in TAKEN]
    if not photos:
        raise UserError(
            "None of these files is a photo that can be read: {names}. Drop jpg, png, webp or tiff files.",
            names=listed([PurePosixPath(path).name for path in visible or paths]),
        )
    taken = [path for path in visible if path not in others]
    tops = {path.partition("/")[0] if "/" in path else "" for path in taken}
    top = tops.pop() if len(tops) == 1 else ""
    places = {path: _folder(path.removeprefix(f"{top}/")) for path in taken}
    notes = []
    if others:
        names = listed([PurePosixPath(path).name for path in others])
        notes.append(message("Left out, because they are no photos that can be read: {names}.", names=names))
    return Upload(places, top or _without_number(photos[0]), places[photos[0]], tuple(notes))


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


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
