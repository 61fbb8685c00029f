"""A folder of photos for the artist's eye: what is wrong with each, a picture as training sees it, captions to write back.

Plain data, no torch.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .framing import is_small, prepare
from .photos import decode_photo, photo_names, read_captions
from .rundir import partial_file

SHOWN = 200
"""So many photos of a folder are shown."""
THUMBNAIL = 224
"""Longer side in pixels."""
MAX_CAPTION = 20_000
"""Characters."""
BLUR = 9
"""Pixels of the other blur."""
BLURRY = 0.45
"""`blurriness` above which a photo is called so. 18 good photos have 0.03 to 0.13; blurred by two pixels, 0.39 to 0.59."""


@dataclass(frozen=True)
class Seen:
    """One file, looked at."""

    width: int
    height: int
    sha256: str
    blurriness: float
    problem: str
    """Why it cannot be read; "" when it can."""


class ConflictError(Exception):
    """A caption that was changed elsewhere meanwhile; the text is what it is now."""


def blurriness(image: Image.Image) -> float:
    """0 (sharp) to 1: the share of the squared differences between neighbours, at 512 pixels, that survives another blur; what
    is sharp loses most of them (after Crete et al. 2007, "The Blur Effect"; squared, so that edges count more than soft shades).
    """
    grey = image.convert("L")
    grey.thumbnail((512, 512))
    pixels = np.asarray(grey, dtype=np.float32)
    found = []
    for lines in (pixels, pixels.T):
        sums = np.cumsum(np.pad(lines, ((0, 0), (BLUR // 2 + 1, BLUR // 2)), mode="edge"), axis=1)
        blurred = (sums[:, BLUR:] - sums[:, :-BLUR]) / BLUR
        before, after = np.diff(lines, axis=1) ** 2, np.diff(blurred, axis=1) ** 2
        found.append(float(np.minimum(before, after).sum() / max(before.sum(), 1e-6)))
    return max(found)


@lru_cache(maxsize=2000)
def _look(path: Path, modified: int, size: int) -> Seen:  # modified and size: a changed file is another one
    try:
        raw = path.read_bytes()
        image = decode_photo(raw)
    except (OSError, ValueError) as error:
        return Seen(0, 0, "", 0.0, str(error))
    return Seen(image.width, image.height, hashlib.sha256(raw).hexdigest(), blurriness(image), "")


def look(path: Path) -> Seen:
    status = path.stat()
    return _look(path, status.st_mtime_ns, status.st_size)


def view(folder: Path, resolution: int, crop: str) -> dict:
    """{"total", "photos": [{"name", "caption", "notes": [sentence]}]}, the first SHOWN of them."""
    names = photo_names(folder)
    shown = names[:SHOWN]
    captions = read_captions(folder, shown)
    seen = {name: look(folder / name) for name in shown}
    by_content: dict[str, list[str]] = {}
    for name, found in seen.items():
        by_content.setdefault(found.sha256, []).append(name)
    photos = []
    for name, found in seen.items():
        notes = [f"cannot be read: {found.problem}"] if found.problem else []
        if not found.problem:
            twins = [other for other in by_content[found.sha256] if other != name]
            notes += [f"the same photo as {twins[0]}"] if twins else []
            small = is_small(found.width, found.height, resolution, crop)
            notes += [f"small: {found.width}x{found.height}"] if small else []
            notes += ["blurry"] if found.blurriness > BLURRY else []
            notes += [] if captions[name].text else ["no caption"]
        photos.append({"name": name, "caption": captions[name].text, "notes": notes})
    return {"total": len(names), "photos": photos}


def thumbnail(path: Path, resolution: int, crop: str) -> bytes:
    """JPEG of the photo as training sees it. ValueError when it cannot be read."""
    image = prepare(decode_photo(path.read_bytes()), resolution, crop)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def write_caption(folder: Path, name: str, text: str, was: str) -> None:
    """Write a photo's caption beside it, whole or not at all.

    ConflictError when the caption is no longer `was`, ValueError for a text that is too long.
    """
    text = " ".join(text.split())
    if len(text) > MAX_CAPTION:
        raise ValueError(f"The caption has {len(text)} characters; at most {MAX_CAPTION} are kept.")
    now = read_captions(folder, [name])[name].text
    if now != " ".join(was.split()):
        raise ConflictError(now)
    with partial_file((folder / name).with_suffix(".txt")) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
