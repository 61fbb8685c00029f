"""A folder of photos as the page shows it: what is suspicious about each photo, and its thumbnail. Plain data, no torch."""

import io
from pathlib import Path

from PIL import Image, ImageEnhance

from ...trainer.dataset.caption_files import read_captions
from ...trainer.dataset.crop import is_small, prepare
from ...trainer.dataset.decode import decode_photo
from ...trainer.dataset.folder import check_folder, file_notes
from ...trainer.dataset.folder_files import folder_files, shown_name
from ...trainer.dataset.masks import decode_mask, mask_files, mask_path
from ...trainer.dataset.metadata_files import Caption
from ...trainer.dataset.photo_checks import BLURRY, PhotoCheck, check_photo
from ...trainer.run.messages import Catalog, Message, message

MAX_PHOTOS = 200
"""So many photos of a folder are shown."""
THUMBNAIL_SIDE = 224
"""Longer side of a thumbnail in pixels."""


def photo_list(folder: Path, resolution: int, crop: str, catalog: Catalog) -> dict:
    """Return {"total", "notes", "photos": [{"name", "caption", "settled", "notes": [sentence]}]}: the first MAX_PHOTOS.

    The caption is None where a picture cannot be shown nor captioned: it is no photo, and may have a photo's name as it is shown.
    settled: it is in a file beside the photo, be it empty, and none from the graph takes its place. The notes say what is
    suspicious about the folder and about each photo, in the catalog's language. Raises UserError for a folder without pictures.
    """
    files = folder_files(folder)
    check_folder(folder, files)
    problems = dict(files.foreign)
    names = sorted([*files.photos, *problems])
    shown = [name for name in names[:MAX_PHOTOS] if name not in problems]
    found = read_captions(folder, shown, files)
    checks = {name: check_photo(folder / name) for name in shown}
    checks |= {name: PhotoCheck(problem=problem) for name, problem in problems.items() if name in names[:MAX_PHOTOS]}
    copies: dict[str, list[str]] = {}
    for name, check in checks.items():
        copies.setdefault(check.sha256, []).append(name)
    photos = []
    for name, check in sorted(checks.items()):
        others = [other for other in copies[check.sha256] if other != name]
        caption = found.captions.get(name, Caption())
        notes = _notes(check, others, caption, is_small(check.width, check.height, resolution, crop))
        if name in found.shared:
            notes.append(message("shares {file} with another photo", file=found.shared[name]))
        photos.append(
            {
                "name": shown_name(name),
                "caption": None if name in problems else caption.text,
                "settled": name in found.settled,
                "notes": [note.text(catalog) for note in notes],
            }
        )
    notes = [note.text(catalog) for note in (*file_notes(folder, files, found.captions), *found.notes)]
    return {"total": len(names), "notes": notes, "photos": photos}


def _notes(check: PhotoCheck, copies: list[str], caption: Caption, small: bool) -> list[Message]:
    """Return what is suspicious about a photo; `copies` are the names of photos with the same bytes."""
    if check.problem:
        return [message("cannot be read: {reason}", reason=check.problem)]
    count = len(caption.texts)
    notes = (
        message("the same photo as {name}", name=copies[0]) if copies else None,
        message("small: {width}x{height}", width=check.width, height=check.height) if small else None,
        message("of one colour, or all transparent") if check.blank else None,
        message("blurry") if check.blurriness > BLURRY and not check.blank else None,
        message("no caption") if not count else None,
        message("{count} captions, a line each: one is drawn each time", count=count) if count > 1 else None,
        *check.notes,
    )
    return [note for note in notes if note]


def mask_of(path: Path, masks: Path | None = None) -> Path:
    """Return where the mask of a photo would be; `masks` is the folder of wired masks, if any."""
    return mask_path(path, mask_files(path.parent, folder_files(path.parent)).get(path.name), masks)


def thumbnail(path: Path, resolution: int, crop: str, mask_file: Path) -> bytes:
    """Return a JPEG of the photo as training sees it, scaled down, and dark where its mask is black.

    Raises UserError when it cannot be read.
    """
    photo = decode_photo(path.read_bytes())
    image = prepare(photo, resolution, crop)
    mask = decode_mask(mask_file.read_bytes(), photo.size, mask_file == path) if mask_file.is_file() else None
    if mask:
        image = Image.composite(image, ImageEnhance.Brightness(image).enhance(0.25), prepare(mask, resolution, crop))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
