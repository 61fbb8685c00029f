"""A folder of photos as training sees it: reading, captions, crop and scale, fingerprint. Plain data, no torch."""

import codecs
import hashlib
import io
import json
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .framing import CROPS, GRID, augment, frame_size, is_small, prepare

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Nothing else, whatever a file is called: some of Pillow's readers start other programs."""
# Formats that photo folders often hold and that we cannot read: named rather than silently passed over.
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
MAX_PIXELS = 100_000_000
MAX_CAPTION_BYTES = 1_000_000
MAX_REPEATS = 100
MAX_VARIANTS = 64
MAX_JITTER = 0.5
SHOWN = 100
"""So many prepared pictures are given back; all of a large folder would fill the memory."""
NAMED = 20
"""So many files are named in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photo and its caption."""

    path: str
    """Absolute path of the file."""
    sha256: str
    """Of the file's bytes: the worker refuses a photo that changed after it was read."""
    width: int
    """Pixels, upright."""
    height: int
    caption: str
    """Empty when there is none."""
    repeats: int = 1
    """How often it is seen for each time that a photo with one repeat is."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The photos of one subject, and how they are cropped and named."""

    photos: tuple[Photo, ...]
    resolution: int
    """Side of the square that training sees, in pixels; a bucket has about as many pixels."""
    crop: str = "center"
    """One of CROPS."""
    flip: bool = False
    """Also train on the mirrored photos."""
    view_jitter: float = 0.0
    """Strength of the augmentation of crop and viewpoint, in [0, 0.5]; see `framing.augment`."""
    color_jitter: float = 0.0
    light_jitter: float = 0.0
    variants: int = 1
    """How many versions of each photo are cached when there is an augmentation: the photo itself and variants - 1 others."""
    token: str = ""
    """Empty until CaptionWithToken has named the subject."""
    class_word: str = ""
    class_prompt: str = ""
    """What a photo of any member of the class is called: the caption of class images that have none."""
    warnings: tuple[str, ...] = ()

    @property
    def views(self) -> int:
        """How many pictures training sees of each photo: its variants, and the mirror image of each."""
        augmented = self.view_jitter or self.color_jitter or self.light_jitter
        return (self.variants if augmented else 1) * (2 if self.flip else 1)

    def deciding(self) -> dict:
        """What decides the training result; where the files lie does not."""
        framing = ("resolution", "crop", "flip", "view_jitter", "color_jitter", "light_jitter")
        return {
            "photos": [(photo.sha256, photo.caption, photo.repeats) for photo in self.photos],
            "views": self.views,
            **{name: getattr(self, name) for name in framing},
        }

    def view(self, image: Image.Image, photo: Photo, number: int) -> Image.Image:
        """View `number` (0 ... views - 1) of the decoded photo, always the same; 0 is the photo itself."""
        variant, mirrored = divmod(number, 2) if self.flip else (number, 0)
        if variant:
            strengths = {"view": self.view_jitter, "colour": self.color_jitter, "light": self.light_jitter}
            rng = random.Random(f"{photo.sha256} {variant}")
            framed = augment(image, self.resolution, self.crop, **strengths, rng=rng)
        else:
            framed = prepare(image, self.resolution, self.crop)
        return ImageOps.mirror(framed) if mirrored else framed

    def frame_size(self, photo: Photo) -> tuple[int, int]:
        """Width and height in pixels of what training sees of the photo."""
        return frame_size(photo.width, photo.height, self.resolution, self.crop)

    def subset(self, indices: list[int]) -> "Dataset":
        return replace(self, photos=tuple(self.photos[i] for i in indices))

    def plain(self) -> "Dataset":
        """The same photos without augmentation."""
        return replace(self, flip=False, view_jitter=0.0, color_jitter=0.0, light_jitter=0.0)

    def with_captions(self, captions: list[str], **names: str) -> "Dataset":
        """Other captions, one a photo; `names` may set token, class_word and class_prompt."""
        photos = tuple(replace(photo, caption=c) for photo, c in zip(self.photos, captions, strict=True))
        return replace(self, photos=photos, **names)

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> "Dataset":
        return cls(**{**data, "photos": tuple(Photo(**p) for p in data["photos"]), "warnings": tuple(data["warnings"])})


def check_resolution(resolution: int) -> None:
    """ValueError unless the VAE can encode it: a multiple of 8 between 64 and 2048."""
    if resolution % 8:
        nearest = round(resolution / 64) * 64 or 64
        raise ValueError(f"The resolution {resolution} is not a multiple of 8. Use {nearest}: multiples of 64 suit SD v1.5 best.")
    if not 64 <= resolution <= 2048:
        raise ValueError(f"The resolution {resolution} is outside 64 to 2048. SD v1.5 was made for 512.")


def check_framing(resolution: int, crop: str) -> None:
    """ValueError unless a photo can be prepared so."""
    check_resolution(resolution)
    if crop not in CROPS:
        raise ValueError(f"Unknown crop {crop!r}; known are {', '.join(CROPS)}.")
    if crop == "bucket" and resolution % GRID:
        raise ValueError(f"Buckets need a resolution that is a multiple of {GRID}, not {resolution}.")


def decode_photo(raw: bytes) -> Image.Image:
    """The photo in a file's bytes: upright (EXIF), as RGB, transparency over white, 16 bits scaled to 8.

    Raises ValueError, with the reason alone, when it cannot be read.
    """
    if not raw:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, named limit follows
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        image = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except Image.UnidentifiedImageError:
        raise ValueError("damaged or not an image") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"damaged: {error}") from None
    if image.mode.startswith(("I", "F")):  # 16 bits a pixel, greyscale
        pixels = np.asarray(image, dtype=np.float32)
        image = Image.fromarray((np.clip(pixels / 257.0, 0, 255) + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _decode(raw: bytes) -> str:
    """Text of a caption file: UTF-8 or UTF-16 by their marks, else UTF-8, else Windows-1252."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_CAPTION_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_CAPTION_BYTES // 10**6} MB, too large for captions.")
    return _decode(path.read_bytes())


@dataclass(frozen=True)
class Caption:
    text: str = ""
    repeats: int = 1


def read_captions(folder: Path, names: list[str]) -> dict[str, Caption]:
    """Caption per file name: `<name>.txt` beside the photo, else the line of `metadata.jsonl` (file_name, text, repeats)."""
    captions = {}
    metadata = folder / "metadata.jsonl"
    if metadata.is_file():
        for number, line in enumerate(_read_text(metadata).splitlines(), 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                caption = Caption(str(entry["text"]), int(entry.get("repeats", 1)))
                if not 1 <= caption.repeats <= MAX_REPEATS:
                    raise ValueError
                captions[str(entry["file_name"])] = caption
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                raise ValueError(
                    f'Line {number} of metadata.jsonl is not of the form {{"file_name": "a.jpg", "text": "a caption"}}, with '
                    f'"repeats": 2 (1 to {MAX_REPEATS}) where a photo counts more. Correct or remove it.'
                ) from None
    for name in names:
        sidecar = (folder / name).with_suffix(".txt")
        known = captions.get(name, Caption())
        text = _read_text(sidecar) if sidecar.is_file() else known.text
        captions[name] = replace(known, text=" ".join(text.split()))
    return captions


def fingerprint(folder: Path) -> str:
    """Changes whenever a file of the folder changes; reads no file."""
    entries = sorted((p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def photo_names(folder: Path) -> list[str]:
    """The files of a folder that are read as photos, by name."""
    return [name for name in _names(folder) if Path(name).suffix.lower() in SUFFIXES]


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _nothing(done: int, total: int) -> None:
    pass


def read_folder(
    folder: Path, resolution: int, crop: str = "center", on_photo: Callable[[int, int], None] = _nothing, **framing
) -> tuple[Dataset, list[Image.Image]]:
    """All photos of a folder (not of its subfolders), by name, and the first SHOWN of the views that training sees of them.

    `framing`: flip, view_jitter, color_jitter, light_jitter, variants of Dataset. `on_photo` gets how many of how many are
    read, and may raise. Raises ValueError naming the photos that cannot be read.
    """
    check_framing(resolution, crop)
    bounds = {"view_jitter": (0, MAX_JITTER), "color_jitter": (0, MAX_JITTER), "light_jitter": (0, MAX_JITTER)}
    for name, (low, high) in (bounds | {"variants": (1, MAX_VARIANTS)}).items():
        if not low <= framing.get(name, low) <= high:
            raise ValueError(f"{name} is {framing[name]}; it must be between {low} and {high}.")
    empty = Dataset(photos=(), resolution=resolution, crop=crop, **framing)
    names = photo_names(folder)
    problems = {name: "unsupported format" for name in _names(folder) if Path(name).suffix.lower() in FOREIGN_SUFFIXES}
    if not names and not problems:
        raise ValueError(f"The folder {folder.name!r} has no photos. Put jpg, png, webp or bmp files into it.")
    captions = read_captions(folder, names)
    photos, views = [], []
    for done, name in enumerate(names):
        on_photo(done, len(names))
        path = folder / name
        try:
            raw = path.read_bytes()
            image = decode_photo(raw)
        except (OSError, ValueError) as error:
            problems[name] = str(error)
            continue
        photo = Photo(
            path=str(path.resolve()),
            sha256=hashlib.sha256(raw).hexdigest(),
            width=image.width,
            height=image.height,
            caption=captions[name].text,
            repeats=captions[name].repeats,
        )
        photos.append(photo)
        views += [empty.view(image, photo, number) for number in range(min(empty.views, SHOWN - len(views)))]
    if problems:
        named = listed([f"{name} ({reason})" for name, reason in sorted(problems.items())])
        raise ValueError(
            f"{len(problems)} of {len(photos) + len(problems)} images cannot be read: {named}. "
            "Convert them to jpg or png, or remove them."
        )
    dataset = replace(empty, photos=tuple(photos))
    return replace(dataset, warnings=_warnings(dataset)), views


def listed(names: Sequence[str]) -> str:
    """The names, or the first of very many."""
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _warnings(dataset: Dataset) -> tuple[str, ...]:
    notes, photos, resolution = [], dataset.photos, dataset.resolution
    small = [p for p in photos if is_small(p.width, p.height, resolution, dataset.crop)]
    if small:
        named = listed([f"{Path(p.path).name} ({p.width}x{p.height})" for p in small])
        notes.append(f"{len(small)} of {len(photos)} photos are smaller than {resolution} pixels and will be enlarged: {named}.")
    by_content: dict[str, list[str]] = {}
    for photo in photos:
        by_content.setdefault(photo.sha256, []).append(Path(photo.path).name)
    twice = [" and ".join(names) for names in by_content.values() if len(names) > 1]
    if twice:
        notes.append(f"The same photo more than once: {listed(twice)}. Remove what is too many, or it counts double.")
    if resolution % 64:
        notes.append(f"The resolution {resolution} works, but a multiple of 64 suits SD v1.5 better.")
    if dataset.crop == "bucket":
        sizes = Counter(dataset.frame_size(photo) for photo in photos)
        notes.append(f"Buckets: {', '.join(f'{n} of {w}x{h}' for (w, h), n in sorted(sizes.items()))}")
    return tuple(notes)
