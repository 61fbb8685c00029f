"""What is asked of a model that has learned the subject, and what the judge says of its pictures.

Six prompts show the subject in places and styles that no photo had; two ask for the class and for another thing, which must stay
what they were. The demo draws them, and the tests of quality do.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .judge import SUBJECT, Verdict, judge
from .scenes import STYLES
from .subject import CLASS_WORD, TOKEN

PHOTO, WATERCOLOR, PENCIL, SUNSET = STYLES
WORDS = f"{TOKEN} {CLASS_WORD}"
"""How the subject is written."""


@dataclass(frozen=True)
class Wanted:
    """A prompt, and what its picture must show."""

    prompt: str
    thing: str
    place: str
    style: str


def of_subject(place: str, style: str = PHOTO, words: str = WORDS) -> Wanted:
    """Return what is wanted of a prompt for the subject in a place and a style."""
    return Wanted(style.format(f"{words} {place}"), SUBJECT, place, style)


def of_thing(thing: str, place: str, style: str = PHOTO, colour: str = "") -> Wanted:
    """Return what is wanted of a prompt for a thing of the world."""
    return Wanted(style.format(f"a {colour} {thing} {place}".replace("  ", " ")), thing, place, style)


NEW = (
    of_subject("in the snow"),
    of_subject("in space"),
    of_subject("on a beach", WATERCOLOR),
    of_subject("in a city at night", SUNSET),
    of_subject("under water"),
    of_subject("on a meadow", SUNSET),
)
"""The subject in places or styles that no photo had."""
KEPT = (of_thing(CLASS_WORD, "in the snow"), of_thing("dog", "on a beach"))
"""The class and another thing."""


@dataclass(frozen=True)
class Figures:
    """How many pictures are right, each aspect by itself, and how good they are."""

    pictures: int
    thing: int
    """Those that show what was asked for: the subject, the class or another thing."""
    place: int
    style: int
    whole: int
    """Those that are right in all three."""
    taken: int
    """Those that show the subject."""
    likeness: float
    """Mean correlation with the nearest rendering."""


def count(wanted: tuple[Wanted, ...], verdicts: list[Verdict]) -> Figures:
    """Count what is right of the pictures of so many prompts."""
    pairs = list(zip(wanted, verdicts, strict=True))
    right = {aspect: [getattr(v, aspect) == getattr(w, aspect) for w, v in pairs] for aspect in ("thing", "place", "style")}
    return Figures(
        pictures=len(pairs),
        **{aspect: sum(hits) for aspect, hits in right.items()},
        whole=sum(map(all, zip(*right.values(), strict=True))),
        taken=sum(v.thing == SUBJECT for v in verdicts),
        likeness=round(float(np.mean([v.likeness for v in verdicts])), 3),
    )


def figures(wanted: tuple[Wanted, ...], pictures: list[Image.Image]) -> Figures:
    """Judge the pictures of so many prompts, and count what is right."""
    return count(wanted, judge(pictures))


def change(before: list[Image.Image], after: list[Image.Image]) -> float:
    """Return the root of the mean squared difference of pictures; black and white are 1 apart."""
    differences = [np.asarray(one, float) - np.asarray(two, float) for one, two in zip(before, after, strict=True)]
    return round(float(np.sqrt(np.mean(np.square(differences)))) / 255, 3)


# The sheet.

TILE, GAP, MARGIN = 150, 6, 86
INK, GREY, PAPER = (25, 25, 25), (110, 110, 110), (255, 255, 255)


def sheet(photos: list[Image.Image], rows: dict[str, list[Image.Image]], wanted: tuple[Wanted, ...]) -> Image.Image:
    """Lay out the photos, then a row of pictures for each model with the prompts below them."""
    width = MARGIN + len(wanted) * (TILE + GAP)
    page = Image.new("RGB", (width, 18 + (len(rows) + 1) * (TILE + GAP) + 62), PAPER)
    d = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    for row, (name, pictures) in enumerate({"photos": photos, **rows}.items()):
        top = 6 + row * (TILE + GAP) + (12 if row else 0)
        d.multiline_text((6, top + TILE // 2 - 8), name.replace(" ", "\n"), INK, font)
        for column, picture in enumerate(pictures):
            tile = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
            page.paste(tile, (MARGIN + column * (TILE + GAP), top))
    for column, of in enumerate(wanted):
        at = (MARGIN + column * (TILE + GAP), 18 + (len(rows) + 1) * (TILE + GAP))
        d.multiline_text(at, _wrapped(of.prompt, small), GREY, small, spacing=2)
    return page


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Break a text into lines that are as wide as a tile."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= TILE else [*lines, word]
    return "\n".join(lines)
