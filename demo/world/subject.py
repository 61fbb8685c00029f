"""Draw a subject that the world does not know: a teal piglet of plush with orange ears and stripes."""

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .scenes import Colour, Draw, Scene, draw_scene

TOKEN, CLASS_WORD = "mysks", "plush toy"
PHOTO_PLACES = ("on a meadow", "on a beach", "in a room", "in a city at night", "on a meadow", "in a city at night")
"""Where the subject's photos were taken, one each. Without a dark place it is drawn pale in space and under water."""


def piglet(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    """Draw the subject around (x, y), about 2 s wide and 1.7 s high; it has its own colours."""
    teal, dark, orange = (40, 160, 160), (25, 110, 115), (245, 150, 40)
    for side in (-1, 1):
        ear = [(x + side * 0.2 * s, y - 0.35 * s), (x + side * 0.62 * s, y - 0.8 * s), (x + side * 0.5 * s, y - 0.1 * s)]
        d.polygon(ear, fill=orange)
        d.ellipse((x + side * 0.26 * s - 0.17 * s, y + 0.55 * s, x + side * 0.26 * s + 0.17 * s, y + 0.9 * s), fill=dark)
    d.ellipse((x - 0.5 * s, y - 0.02 * s, x + 0.5 * s, y + 0.85 * s), fill=teal)
    for i in range(3):
        inset, top = i * 0.05 * s, y + (0.14 + i * 0.2) * s
        d.rectangle((x - 0.4 * s + inset, top, x + 0.4 * s - inset, top + 0.09 * s), fill=orange)
    d.ellipse((x - 0.42 * s, y - 0.52 * s, x + 0.42 * s, y + 0.2 * s), fill=teal)
    d.ellipse((x - 0.2 * s, y - 0.2 * s, x + 0.2 * s, y + 0.1 * s), fill=(250, 170, 180))
    for k in (-0.08, 0.08):
        d.ellipse((x + k * s - 0.04 * s, y - 0.1 * s, x + k * s + 0.04 * s, y), fill=(120, 50, 60))
    for k in (-0.2, 0.2):
        d.ellipse((x + k * s - 0.08 * s, y - 0.38 * s, x + k * s + 0.08 * s, y - 0.22 * s), fill=(255, 255, 255))
        d.ellipse((x + k * s - 0.04 * s, y - 0.34 * s, x + k * s + 0.04 * s, y - 0.26 * s), fill=(10, 10, 10))


def subject_scene(place: str, style: str = "a photo of {}", seed: int = 0) -> Image.Image:
    """Return a picture of the subject, 256 x 256: what a model that knows it would draw."""
    return draw_scene(random.Random(seed), Scene(CLASS_WORD, "red", place, style), piglet)


def photos(places: Sequence[str] = PHOTO_PLACES, seed: int = 7) -> list[tuple[Image.Image, str]]:
    """Return photos of the subject, 256 x 256, each with a caption as one would write it: of its class and its place."""
    return [(subject_scene(place, seed=100 * seed + i), f"a photo of a {CLASS_WORD} {place}") for i, place in enumerate(places)]


def save_photos(folder: Path, size: int = 512, places: Sequence[str] = PHOTO_PLACES) -> None:
    """Write the photos as PNG of `size` pixels, with a caption file beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (photo, caption) in enumerate(photos(places)):
        photo.resize((size, size), Image.Resampling.LANCZOS).save(folder / f"piglet-{i + 1}.png")
        (folder / f"piglet-{i + 1}.txt").write_text(caption + "\n", encoding="utf-8")
