"""A folder of photos, read as a dataset: which files count, what is wrong with them, when they change. Plain data, no torch."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..run.messages import Message, UserError, message
from .caption_files import read_captions
from .crop import is_small
from .photos import Dataset, Photo, check_framing, read_photo

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FOREIGN_SUFFIXES = (
    ".heic",
    ".heif",
    ".avif",
    ".tif",
    ".tiff",
    ".gif",
    ".jxl",
    ".psd",
    ".svg",
    ".cr2",
    ".nef",
    ".arw",
    ".dng",
)
"""Formats that folders of photos often hold and that we cannot read: named, rather than silently passed over."""
MAX_VARIANTS = 64
MAX_JITTER = 0.5
MAX_PREVIEWS = 100
"""So many prepared pictures are returned; those of a large folder would fill the memory."""
MAX_NAMED = 20
"""So many files are named in a sentence."""


def photo_names(folder: Path) -> list[str]:
    """Return the names of the folder's files that are read as photos, sorted."""
    return [name for name in _file_names(folder) if Path(name).suffix.lower() in SUFFIXES]


def fingerprint(folder: Path) -> str:
    """Return a hash, as hex, that changes whenever a file of the folder changes; no file is read for it."""
    entries = sorted((p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def _ignore_progress(done: int, total: int) -> None:
    pass


def read_folder(
    folder: Path,
    resolution: int,
    crop: str = "center",
    on_photo: Callable[[int, int], None] = _ignore_progress,
    **augmentation: Any,
) -> tuple[Dataset, list[Image.Image]]:
    """Return all photos of a folder (not of its subfolders), by name, and the first MAX_PREVIEWS views that training sees.

    `augmentation`: flip, view_jitter, color_jitter, light_jitter, variants of Dataset. `on_photo` is called with the number of
    photos read so far and of all, and may raise. Raises UserError for settings that cannot be, and naming all photos that cannot
    be read.
    """
    check_framing(resolution, crop)
    _check_augmentation(augmentation)
    empty = Dataset(photos=(), resolution=resolution, crop=crop, **augmentation)
    names = photo_names(folder)
    foreign = [name for name in _file_names(folder) if Path(name).suffix.lower() in FOREIGN_SUFFIXES]
    if not names and not foreign:
        raise UserError("The folder {name!r} has no photos. Put jpg, png, webp or bmp files into it.", name=folder.name)
    problems = {name: message("unsupported format") for name in foreign}
    captions = read_captions(folder, names)
    photos: list[Photo] = []
    previews: list[Image.Image] = []
    for done, name in enumerate(names):
        on_photo(done, len(names))
        path = folder / name
        try:
            image, sha256 = read_photo(path)
        except UserError as error:
            problems[name] = error.message
            continue
        photo = Photo(
            path=str(path.resolve()),
            sha256=sha256,
            width=image.width,
            height=image.height,
            caption=captions[name].text,
            repeats=captions[name].repeats,
        )
        photos.append(photo)
        previews += [empty.view(image, photo, number) for number in range(min(empty.views, MAX_PREVIEWS - len(previews)))]
    if problems:
        raise UserError(
            "{unreadable} of {total} images cannot be read: {images}. Convert them to jpg or png, or remove them.",
            unreadable=len(problems),
            total=len(photos) + len(problems),
            images=listed([message("{name} ({reason})", name=n, reason=reason) for n, reason in sorted(problems.items())]),
        )
    dataset = replace(empty, photos=tuple(photos))
    return replace(dataset, warnings=_warnings(dataset)), previews


def listed(items: Sequence[str | Message]) -> Message | Sequence[str | Message]:
    """Return the items as a value of a message: all of them, or the first MAX_NAMED and how many more there are."""
    if len(items) <= MAX_NAMED:
        return items
    return message("{items} and {more} more", items=items[:MAX_NAMED], more=len(items) - MAX_NAMED)


def _file_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _check_augmentation(values: dict[str, Any]) -> None:
    """Raise UserError for a strength or a number of variants that is out of bounds."""
    jitters = ("view_jitter", "color_jitter", "light_jitter")
    bounds = {**{name: (0, MAX_JITTER) for name in jitters}, "variants": (1, MAX_VARIANTS)}
    for name, (low, high) in bounds.items():
        if name in values and not low <= values[name] <= high:
            raise UserError(
                "{name} is {value}; it must be between {low} and {high}.", name=name, value=values[name], low=low, high=high
            )


def _warnings(dataset: Dataset) -> tuple[Message, ...]:
    """Return what the user should know of photos that can all be read."""
    found = (_small_photos(dataset), _duplicates(dataset), _odd_resolution(dataset), _bucket_sizes(dataset))
    return tuple(warning for warning in found if warning)


def _small_photos(dataset: Dataset) -> Message | None:
    small = [photo for photo in dataset.photos if is_small(photo.width, photo.height, dataset.resolution, dataset.crop)]
    if not small:
        return None
    return message(
        "{small} of {total} photos are smaller than {resolution} pixels and will be enlarged: {photos}.",
        small=len(small),
        total=len(dataset.photos),
        resolution=dataset.resolution,
        photos=listed(
            [message("{name} ({width}x{height})", name=_name(photo), width=photo.width, height=photo.height) for photo in small]
        ),
    )


def _duplicates(dataset: Dataset) -> Message | None:
    first: dict[str, str] = {}
    pairs = []
    for photo in dataset.photos:
        original = first.setdefault(photo.sha256, _name(photo))
        if original != _name(photo):
            pairs.append(message("{name} and {copy}", name=original, copy=_name(photo)))
    if not pairs:
        return None
    return message(
        "The same photo more than once: {pairs}. Remove the copies, or it counts more than the others.", pairs=listed(pairs)
    )


def _odd_resolution(dataset: Dataset) -> Message | None:
    if dataset.resolution % 64 == 0:
        return None
    return message("The resolution {resolution} works, but a multiple of 64 suits SD v1.5 better.", resolution=dataset.resolution)


def _bucket_sizes(dataset: Dataset) -> Message | None:
    if dataset.crop != "bucket":
        return None
    counts = Counter(dataset.frame_size(photo) for photo in dataset.photos)
    sizes = [message("{count} of {width}x{height}", count=count, width=w, height=h) for (w, h), count in sorted(counts.items())]
    return message("Buckets: {sizes}", sizes=sizes)


def _name(photo: Photo) -> str:
    return Path(photo.path).name
