"""A folder of photos, read as a dataset: which files count, what is wrong with them, when they change. Plain data, no torch."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..run.checks import check_between
from ..run.messages import Message, UserError, message
from .caption_files import read_captions
from .crop import is_small
from .folder_files import FolderFiles, count_photos, folder_files, shown_name, subfolders
from .masks import decode_mask, is_cut_off, mask_files, mask_path
from .metadata_files import MAX_REPEATS, Caption
from .named import listed
from .photo_checks import is_blank
from .photos import Dataset, Photo, PhotoFile, check_framing, read_photo
from .wired import MAX_PREVIEWS, NOTHING_WIRED, Wired, with_wired_captions

MAX_VARIANTS = 64
MAX_JITTER = 0.5
MOST_SUBFOLDERS = 100
"""So many subfolders of a folder are looked into."""
_REPEATS = re.compile(r"([0-9]{1,3})_.")
"""The beginning of a folder's name for kohya's trainers; a number of four digits is a year."""


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
    wired: Wired = NOTHING_WIRED,
    **augmentation: Any,
) -> tuple[Dataset, list[Image.Image]]:
    """Return all photos of a folder (not of its subfolders), by name, and the first MAX_PREVIEWS views that training sees.

    `augmentation`: flip, view_jitter, color_jitter, light_jitter, variants, mask_weight of Dataset. `on_photo` is called with the
    number of photos read so far and of all, and may raise. `wired`: captions for photos that have none, and masks. Raises
    UserError for settings that cannot be, and naming all photos and masks that cannot be read.
    """
    check_framing(resolution, crop)
    _check_augmentation(augmentation)
    empty = Dataset(photos=(), resolution=resolution, crop=crop, **augmentation)
    files = folder_files(folder)
    check_folder(folder, files)
    problems = dict(files.foreign)
    found = read_captions(folder, files.photos, files)
    captions = found.captions if wired.captions is None else with_wired_captions(found, wired.captions)
    masks = mask_files(folder, files)
    photos: list[Photo] = []
    previews: list[Image.Image] = []
    blank: list[str] = []
    cut_off: list[str] = []
    notes: list[Message] = []
    for done, name in enumerate(files.photos):
        on_photo(done, len(files.photos))
        path = folder / name
        try:
            read = read_photo(path)
        except UserError as error:
            problems[name] = error.message
            continue
        photo = _photo(path, read, captions[name])
        try:
            photo, mask = _with_mask(photo, mask_path(path, masks.get(name), wired.masks), read.has_alpha)
            cut_off += [name] if mask and empty.mask_weight < 1 and is_cut_off(mask, resolution, crop) else []
        except UserError as error:
            if wired.masks:
                problems[name] = message("its wired mask: {reason}", reason=error.message)
            else:
                problems[masks.get(name, name)] = error.message
        photos.append(photo)
        notes += [message("{name} ({reason})", name=name, reason=note) for note in read.notes]
        blank += [name] if is_blank(read.image) else []
        previews += [empty.view(read.image, photo, number) for number in range(min(empty.views, MAX_PREVIEWS - len(previews)))]
    if problems:
        raise _unreadable(problems, total=len({*files.photos, *problems}))
    dataset = replace(empty, photos=tuple(photos))
    told = (*_warnings(dataset), *_photo_notes(blank, cut_off, notes), *file_notes(folder, files, found.captions), *found.notes)
    return replace(dataset, warnings=told), previews


def _unreadable(problems: dict[str, Message], total: int) -> UserError:
    """Return the error that names the images that cannot be read, each with its reason."""
    return UserError(
        "{unreadable} of {total} images cannot be read: {images}. Where nothing else is said, convert them to jpg or png, or "
        "remove them.",
        unreadable=len(problems),
        total=total,
        images=listed(
            [message("{name} ({reason})", name=shown_name(n), reason=reason) for n, reason in sorted(problems.items())]
        ),
    )


def _photo(path: Path, read: PhotoFile, caption: Caption) -> Photo:
    first, *others = caption.texts or ("",)
    return Photo(
        path=str(path.parent.resolve() / path.name),  # its own name, also of a link
        sha256=read.sha256,
        width=read.image.width,
        height=read.image.height,
        caption=first,
        repeats=caption.repeats or folder_repeats(path.parent),
        alternatives=tuple(others),
    )


def _with_mask(photo: Photo, path: Path, has_alpha: bool) -> tuple[Photo, Image.Image | None]:
    """Return the photo with the mask in a file, and the mask, if that tells anything.

    Raises UserError, with the reason, for no picture.
    """
    is_alpha = path.name == Path(photo.path).name
    if is_alpha and not has_alpha:
        return photo, None
    raw = path.read_bytes()
    mask = decode_mask(raw, (photo.width, photo.height), is_alpha)
    if mask is None:
        return photo, None
    return replace(photo, mask=str(path.parent.resolve() / path.name), mask_sha256=hashlib.sha256(raw).hexdigest()), mask


def folder_repeats(folder: Path) -> int:
    """Return how often the photos of a folder count by its name, as kohya's trainers have it: 10 of "10_mysks dog", else 1."""
    number = _REPEATS.match(folder.name)
    return int(number[1]) if number and 1 <= int(number[1]) <= MAX_REPEATS else 1


def _repeats_note(folder: Path) -> Message | None:
    """Return what the number at the beginning of the folder's name does."""
    number, repeats = _REPEATS.match(folder.name), folder_repeats(folder)
    if repeats > 1:
        return message(
            "By the name of the folder {name!r}, each photo counts {repeats} times.", name=folder.name, repeats=repeats
        )
    if number and int(number[1]) != 1:
        return message(
            "The number of the folder {name!r} is not used, and each photo counts once: repeats go from 1 to {most}.",
            name=folder.name,
            most=MAX_REPEATS,
        )
    return None


def check_folder(folder: Path, files: FolderFiles) -> None:
    """Raise UserError for a folder that has no pictures, or whose name cannot be written down."""
    if shown_name(str(folder.resolve())) != str(folder.resolve()):
        raise UserError("The name of the folder {name!r} is not UTF-8. Rename it.", name=shown_name(folder.name))
    if files.photos or files.foreign:
        return
    counts = subfolders_with_photos(folder)
    if counts:
        raise UserError(
            "The folder {name!r} has no photos of its own. Choose one of its subfolders: {folders}.",
            name=folder.name,
            folders=_counted(counts),
        )
    unused = [*map(shown_name, (*files.strangers, *files.companions))]
    if unused:
        raise UserError(
            "The folder {name!r} has no photos: {unused} are masks, or do not end like a photo's name. Put jpg, png, webp or bmp "
            "files into it.",
            name=folder.name,
            unused=listed(unused),
        )
    raise UserError("The folder {name!r} has no photos. Put jpg, png, webp or bmp files into it.", name=folder.name)


def _counted(counts: dict[str, int]) -> Message | Sequence[str | Message]:
    return listed([message("{name} ({count} photos)", name=name, count=count) for name, count in counts.items()])


def subfolders_with_photos(folder: Path, depth: int = 3) -> dict[str, int]:
    """Return how many photos the folders below have, by their paths from the folder's own name; at most `depth` levels down."""
    counts: dict[str, int] = {}
    for path in [path for path in subfolders(folder) if not path.is_symlink()][:MOST_SUBFOLDERS]:
        count = count_photos(path)
        counts |= {f"{folder.name}/{shown_name(path.name)}": count} if count else {}
        if depth > 1:
            counts |= {f"{folder.name}/{below}": number for below, number in subfolders_with_photos(path, depth - 1).items()}
    return counts


def _photo_notes(blank: list[str], cut_off: list[str], notes: list[Message]) -> list[Message]:
    """Return what was odd about photos that were read, which show nothing, and of which subjects the crop leaves nothing."""
    told = []
    if notes:
        told.append(message("Photos that were read with a remark: {photos}.", photos=listed(notes)))
    if blank:
        told.append(
            message("Photos of one colour, or all transparent, have nothing to learn from: {photos}.", photos=listed(blank))
        )
    if cut_off:
        told.append(
            message(
                "The crop cuts off what the masks of these photos show: {photos}. Choose another crop, pad for example.",
                photos=listed(cut_off),
            )
        )
    return told


def file_notes(folder: Path, files: FolderFiles, captions: dict[str, Caption]) -> list[Message]:
    """Return what the user should know of the files that are not used, and of the folder's name where a photo counts by it."""
    repeats = None if all(caption.repeats for caption in captions.values()) else _repeats_note(folder)
    told = [repeats] if repeats else []
    below = subfolders_with_photos(folder)
    if below:
        told.append(message("Photos in subfolders are not read: {folders}.", folders=_counted(below)))
    unused = [name for name in files.companions if name not in mask_files(folder, files).values()]
    if unused:
        told.append(message("Masks and the like of other trainers are not used: {names}.", names=_names(unused)))
    if files.sources:
        told.append(message("Passed over, because there is a photo of that name: {names}.", names=_names(files.sources)))
    if files.strangers:
        told.append(
            message(
                "Pictures whose names do not end like a photo's were passed over: {names}. Rename or convert them to use them.",
                names=_names(files.strangers),
            )
        )
    return told


def _names(names: Sequence[str]) -> Message | Sequence[str | Message]:
    return listed([shown_name(name) for name in names])


def _check_augmentation(values: dict[str, Any]) -> None:
    """Raise UserError for a strength or a number of variants that is out of bounds."""
    jitters = ("view_jitter", "color_jitter", "light_jitter")
    bounds = {**{name: (0, MAX_JITTER) for name in jitters}, "variants": (1, MAX_VARIANTS), "mask_weight": (0, 1)}
    for name, (low, high) in bounds.items():
        if name in values:
            check_between(name, values[name], low, high)


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
        original = first.setdefault(photo.sha256, _name(photo))  # the names of a folder's files differ
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
