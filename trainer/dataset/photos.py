"""The photos of one subject as data, and which sizes and crops are allowed. Plain data, no torch."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from ..run.checks import check_option
from ..run.memory_errors import out_of_memory
from ..run.messages import Message, UserError
from .crop import CROPS, GRID, augment, frame_size, prepare
from .decode import decode

MIN_RESOLUTION, MAX_RESOLUTION, RESOLUTION_STEP = 64, 2048, 8
"""Which resolutions there are, in pixels: the VAE makes one latent of 8 x 8 of them."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photo and its captions."""

    path: str
    """Absolute path of the file."""
    sha256: str
    """Of the file's bytes, as hex: the worker refuses a photo that changed after it was read."""
    width: int
    """Pixels, upright."""
    height: int
    caption: str
    """Empty when there is none."""
    repeats: int = 1
    """How often it is seen for each time that a photo with one repeat is."""
    alternatives: tuple[str, ...] = ()
    """Further captions of the whole photo: each time it is seen, one of all is drawn."""
    mask: str = ""
    """Absolute path of its mask: its own path where that is its alpha channel. Empty where it has none."""
    mask_sha256: str = ""
    """Of the mask's file."""

    @property
    def captions(self) -> tuple[str, ...]:
        """Return all its captions, one of which it is seen under."""
        return (self.caption, *self.alternatives)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The photos of one subject, and how they are cropped, augmented and captioned."""

    photos: tuple[Photo, ...]
    resolution: int
    """Side of the square that training sees, in pixels; a bucket has about as many pixels."""
    crop: str = "center"
    """One of CROPS."""
    flip: bool = False
    """Also train on the mirrored photos."""
    view_jitter: float = 0.0
    """Strength of the augmentation of crop and viewpoint, in [0, 0.5]; see `crop.augment`."""
    color_jitter: float = 0.0
    light_jitter: float = 0.0
    variants: int = 1
    """How many versions of each photo are cached when there is an augmentation: the photo itself and variants - 1 others."""
    token: str = ""
    """Empty until CaptionWithToken has named the subject."""
    class_word: str = ""
    class_prompt: str = ""
    """What a photo of any member of the class is called: the caption of class images that have none."""
    mask_weight: float = 1.0
    """How much the loss counts outside of the masks, from 0 to 1."""
    warnings: tuple[Message, ...] = ()
    """What the user should know about the folder."""

    @property
    def masked(self) -> bool:
        """Return whether any photo has a mask that changes the loss."""
        return self.mask_weight < 1 and any(photo.mask for photo in self.photos)

    @property
    def views(self) -> int:
        """Return how many pictures training sees of each photo: its variants, and the mirror image of each."""
        augmented = self.view_jitter or self.color_jitter or self.light_jitter
        return (self.variants if augmented else 1) * (2 if self.flip else 1)

    def deciding(self, captions: bool = True) -> dict:
        """Return what decides the training result, by name; where the files lie does not, nor captions that are not used."""
        framing, jitters = ("resolution", "crop", "flip"), ("view_jitter", "color_jitter", "light_jitter")
        return {
            "photos": [(photo.sha256, *(photo.captions if captions else ()), photo.repeats) for photo in self.photos],
            "views": self.views,
            **{name: getattr(self, name) for name in framing},
            **{name: getattr(self, name) if self.variants > 1 else 0.0 for name in jitters},  # the first variant has none
            **({"masks": [photo.mask_sha256 for photo in self.photos], "mask_weight": self.mask_weight} if self.masked else {}),
        }

    def view(self, image: Image.Image, photo: Photo, number: int) -> Image.Image:
        """Return view `number` (0 ... views - 1) of the decoded photo, always the same; 0 is the photo itself."""
        return self._view(image, photo, number, self.color_jitter, self.light_jitter)

    def mask_view(self, mask: Image.Image, photo: Photo, number: int) -> Image.Image:
        """Return what is seen of the photo's mask (L, of the photo's size) in its view `number`."""
        return self._view(mask, photo, number, color=0.0, light=0.0)

    def _view(self, image: Image.Image, photo: Photo, number: int, color: float, light: float) -> Image.Image:
        variant, mirrored = divmod(number, 2) if self.flip else (number, 0)
        if variant:
            rng = random.Random(f"{photo.sha256} {variant}")
            framed = augment(image, self.resolution, self.crop, view=self.view_jitter, color=color, light=light, rng=rng)
        else:
            framed = prepare(image, self.resolution, self.crop)
        return ImageOps.mirror(framed) if mirrored else framed

    def frame_size(self, photo: Photo) -> tuple[int, int]:
        """Return width and height in pixels of what training sees of the photo."""
        return frame_size(photo.width, photo.height, self.resolution, self.crop)

    def subset(self, indices: list[int]) -> "Dataset":
        """Return the dataset with these of its photos alone."""
        return replace(self, photos=tuple(self.photos[i] for i in indices))

    def without_augmentation(self) -> "Dataset":
        """Return the same photos, each with one view."""
        return replace(self, flip=False, view_jitter=0.0, color_jitter=0.0, light_jitter=0.0)

    def with_captions(self, captions: Sequence[str | Sequence[str]], **names: str) -> "Dataset":
        """Return the photos with other captions, one a photo, or a list of alternatives.

        `names` may set token, class_word and class_prompt.
        """
        photos = []
        for photo, given in zip(self.photos, captions, strict=True):
            first, *others = dict.fromkeys([given] if isinstance(given, str) else given)
            photos.append(replace(photo, caption=first, alternatives=tuple(others)))
        return replace(self, photos=tuple(photos), **names)

    def to_json(self) -> dict:
        """Return the dataset as JSON has it; `from_json` reads it."""
        return {**asdict(replace(self, warnings=())), "warnings": [warning.to_json() for warning in self.warnings]}

    @classmethod
    def from_json(cls, data: dict) -> "Dataset":
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        photos = tuple(Photo(**{**photo, "alternatives": tuple(photo.get("alternatives", ()))}) for photo in data["photos"])
        notes = tuple(Message.from_json(warning) for warning in data["warnings"])
        return cls(**{**data, "photos": photos, "warnings": notes})


def check_hold_out(hold_out: int, count: int) -> None:
    """Raise UserError when holding so many of `count` photos out leaves none to train on."""
    if hold_out and hold_out >= count:
        raise UserError(
            "hold_out is {hold_out}, but there are only {count} photos. At least one must be left to train on.",
            hold_out=hold_out,
            count=count,
        )


def check_resolution(resolution: int) -> None:
    """Raise UserError unless photos can be prepared, and encoded by the VAE, at so many pixels a side."""
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise UserError(
            "The resolution {resolution} is outside {low} to {high}. SD v1.5 was made for 512.",
            resolution=resolution,
            low=MIN_RESOLUTION,
            high=MAX_RESOLUTION,
        )
    if resolution % RESOLUTION_STEP:
        raise UserError(
            "The resolution {resolution} is not a multiple of {step}. Use {nearest}: multiples of 64 suit SD v1.5 best.",
            resolution=resolution,
            step=RESOLUTION_STEP,
            nearest=round(resolution / 64) * 64 or 64,
        )


def check_framing(resolution: int, crop: str) -> None:
    """Raise UserError unless photos can be prepared at this resolution with this crop."""
    check_resolution(resolution)
    check_option("crop", crop, CROPS)
    if crop == "bucket" and resolution % GRID:
        raise UserError(
            "Buckets need a resolution that is a multiple of {grid}, not {resolution}.", grid=GRID, resolution=resolution
        )


@dataclass(frozen=True)
class PhotoFile:
    """What a photo file holds."""

    image: Image.Image
    """RGB, upright."""
    sha256: str
    """Of the file's bytes, as hex."""
    notes: tuple[Message, ...]
    """What the user should know of the file."""
    has_alpha: bool
    """Whether some of it may be transparent."""


MAX_FILE_BYTES = 1_000_000_000


def read_photo(path: Path) -> PhotoFile:
    """Return the decoded photo of a file. Raises UserError, with the reason alone."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError("{size:.1f} GB, which no photo has", size=size / 1e9)
        raw = path.read_bytes()
    except OSError as error:
        if out_of_memory(error):
            raise
        raise UserError("file system error: {reason}", reason=error.strerror or str(error)) from None
    decoded = decode(raw)
    return PhotoFile(decoded.image, hashlib.sha256(raw).hexdigest(), decoded.notes, decoded.alpha is not None)
