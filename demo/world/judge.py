"""Say what a picture of the drawn world shows, by the nearest of many renderings: thing, colour, place and style.

    verdicts = judge(pictures)     # 128 x 128 each, as the stand-in's VAE decodes them
    verdicts[0].thing, verdicts[0].place, verdicts[0].likeness

In a drawn world the truth can be drawn, so right and wrong are computed. A picture is first brought back to the 16 x 16 points
that its latents held (`points`). There a scene is the place, covered by the thing where the thing is, and each style is one
affine map of the colours. So a rendering of every thing in every colour, position and size, over every place in every style,
need not be drawn: its distance from a picture is a sum of products of parts that are, and all of them take one multiplication of
matrices. The subject is one of the things.
"""

import functools
import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .scenes import COLOURS, PLACES, SIDE, STYLES, THINGS
from .subject import piglet

SUBJECT = "subject"
"""What the judge calls the subject's shape, and its colours."""
POINTS, BLOCK = 16, 8
"""Points of a side, and the pixels of a point in a picture of 128."""
CELL = SIDE // POINTS
ACROSS, DOWN, SIZES = range(-40, 41, 8), range(121, 162, 8), (66, 73, 80, 87, 94)
"""Where the things are looked for: like `scenes.draw_scene`, and a little further."""
DRAWINGS = 16
"""How often each place is drawn, for its trees, houses and stars stand elsewhere each time."""
FAR_OFF = 0.03
"""The squared distance of two colours from which on they are just different."""
BACKGROUNDS = 10
"""In how many of the likeliest places and styles all things are looked for."""


@dataclass(frozen=True)
class Verdict:
    """What a picture shows, each by itself, and how well."""

    thing: str
    colour: str
    place: str
    style: str
    likeness: float
    """Pearson correlation with the nearest rendering, at 16 x 16 points."""
    error: float
    """Root of the mean squared difference from it; black and white are 1 apart."""
    margin: float
    """By which part of the error the nearest rendering of any other thing is worse: 0.1 is clear, 0.02 a guess."""


def judge(pictures: Iterable[Image.Image]) -> list[Verdict]:
    """Say what each picture shows: 128 x 128 pixels, as the stand-in's VAE decodes them."""
    return [_nearest(points(picture)) for picture in pictures]


# From pixels to points and back.


@functools.cache
def _decoder() -> np.ndarray:
    """Return what the stand-in's VAE makes of a line of 16 points, averaged over each point's 8 pixels again: (16, 16)."""
    line = np.eye(POINTS)
    while len(line) < POINTS * BLOCK:
        line = np.repeat(line, 2, axis=0)  # three times twice as long, each time blurred, with grey beyond the ends
        beyond = np.zeros((1, POINTS))
        line = (np.vstack([beyond, line[:-1]]) + 2 * line + np.vstack([line[1:], beyond])) / 4
    return line


def decoded(picture: Image.Image) -> Image.Image:
    """Return a drawn picture as the stand-in's VAE encodes and decodes it at 128 pixels: the best that a model could draw."""
    small = np.asarray(picture.convert("RGB").resize((POINTS, POINTS), Image.Resampling.BOX), float) / 127.5 - 1
    large = np.einsum("yi,ijc,xj->yxc", _decoder(), small, _decoder())
    return Image.fromarray(((large.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))


def points(picture: Image.Image) -> np.ndarray:
    """Return the colours (768,), 16 x 16 x 3 in [0, 1], that the latents of a picture held."""
    if picture.size != (POINTS * BLOCK, POINTS * BLOCK):
        raise ValueError(f"The picture has {picture.size} pixels; it must have {POINTS * BLOCK} x {POINTS * BLOCK}.")
    pixels = np.asarray(picture.convert("RGB"), float) / 127.5 - 1
    means = pixels.reshape(POINTS, BLOCK, POINTS, BLOCK, 3).mean((1, 3))
    inverse = np.linalg.inv(_decoder().reshape(POINTS, BLOCK, POINTS).mean(1))
    sharp = np.einsum("iy,yxc,jx->ijc", inverse, means, inverse)
    return ((sharp.clip(-1, 1) + 1) / 2).astype(np.float32).ravel()


def _small(image: Image.Image) -> np.ndarray:
    """Return a drawn picture as (16, 16, 3) in [0, 1]."""
    return np.asarray(image.resize((POINTS, POINTS), Image.Resampling.BOX), np.float32) / 255


# What is compared with.


@functools.cache
def _styles() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each style as a matrix (3, 3) and a colour (3,): what it makes of a colour is matrix @ colour + that."""

    def of(style: str, colour: tuple[int, int, int]) -> np.ndarray:
        return _small(STYLES[style](Image.new("RGB", (SIDE, SIDE), colour)))[8, 8]

    black = {style: of(style, (0, 0, 0)) for style in STYLES}
    pure = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    return {style: (np.stack([of(style, colour) - black[style] for colour in pure], 1), black[style]) for style in STYLES}


@functools.cache
def _places() -> dict[tuple[str, str], np.ndarray]:
    """Return each place in each style, drawn many times and their mean: (drawings, 768)."""
    drawn = {}
    for place, draw in PLACES.items():
        pictures = []
        for seed in range(DRAWINGS):
            image = Image.new("RGB", (SIDE, SIDE))
            draw(ImageDraw.Draw(image), random.Random(seed))
            pictures.append(image)
        for style, change in STYLES.items():
            views = np.stack([_small(change(image)).ravel() for image in pictures])
            drawn[place, style] = np.vstack([views, views.mean(0, keepdims=True)])
    return drawn


@dataclass(frozen=True)
class _Things:
    """All renderings of things on nothing: N looks, and the S shapes that they have in common."""

    names: np.ndarray
    """Thing and colour of each look, (N, 2)."""
    shape: np.ndarray
    """Which shape each look has, (N,)."""
    cover: np.ndarray
    """How much of each point a shape covers, (S, 256)."""
    colours: np.ndarray
    """The colours of a look, times how much it covers, (N, 768)."""
    covered: np.ndarray
    """The same, times how much it covers once more, (N, 768)."""
    squares: dict[str, np.ndarray]
    """The squared length of each look in each style, (N,)."""


def _drawn_thing(thing: str, colour: str, size: int, sub: tuple[int, int], ground: int) -> np.ndarray:
    """Return a thing in the middle of a grey ground, shifted by less than a point, as (16, 16, 3)."""
    image = Image.new("RGB", (SIDE, SIDE), (ground,) * 3)
    draw = piglet if thing == SUBJECT else THINGS[thing]
    draw(ImageDraw.Draw(image), SIDE / 2 + sub[0], SIDE / 2 + sub[1], size, COLOURS.get(colour, (0, 0, 0)))
    return _small(image)


def _shifted(picture: np.ndarray, across: int, down: int) -> np.ndarray:
    """Return a picture moved by whole points; what leaves it is lost."""
    moved = np.zeros_like(picture)
    height, width = picture.shape[:2]
    target = (slice(max(0, down), height + min(0, down)), slice(max(0, across), width + min(0, across)))
    source = (slice(max(0, -down), height - max(0, down)), slice(max(0, -across), width - max(0, across)))
    moved[target] = picture[source]
    return moved


@functools.cache
def _things() -> _Things:
    """Draw every thing in every colour, size and position."""
    names, shape, cover, colours = [], [], [], []
    where = [(x, y - SIDE // 2) for x in ACROSS for y in DOWN]
    for thing in (*THINGS, SUBJECT):
        looks = [SUBJECT] if thing == SUBJECT else list(COLOURS)
        for size in SIZES:
            subs = {(x % CELL, y % CELL) for x, y in where}
            on_white = {sub: _drawn_thing(thing, looks[0], size, sub, 255) for sub in subs}
            on_black = {(look, sub): _drawn_thing(thing, look, size, sub, 0) for look in looks for sub in subs}
            for x, y in where:
                sub, move = (x % CELL, y % CELL), (x // CELL, y // CELL)
                covers = 1 - (on_white[sub] - on_black[looks[0], sub]).mean(2)
                cover.append(_shifted(covers, *move).ravel())
                for look in looks:
                    names.append((thing, look))
                    shape.append(len(cover) - 1)
                    colours.append(_shifted(on_black[look, sub], *move).ravel())
    covers, looks, index = np.stack(cover), np.stack(colours), np.array(shape)
    covered = looks * np.repeat(covers, 3, axis=1)[index]
    squares = {style: np.square(_styled(looks, covers[index], style)).sum(1) for style in STYLES}
    return _Things(np.array(names), index, covers, looks, covered, squares)


def _styled(look: np.ndarray, cover: np.ndarray, style: str) -> np.ndarray:
    """Return looks (N, 768) that cover (N, 256) in a style, (N, 768)."""
    matrix, black = _styles()[style]
    return (look.reshape(-1, 3) @ matrix.T + cover.reshape(-1, 1) * black).reshape(look.shape)


# The nearest.


def _likely_places(picture: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """Return the places and styles, with the drawing of each (768,), that fit a picture best where nothing covers them."""
    fits = []
    for (place, style), views in _places().items():
        # A point that a thing covers is far off, and counts as no more than far off.
        errors = np.square(picture - views).reshape(len(views), -1, 3).sum(2).clip(max=FAR_OFF).sum(1)
        fits.append((errors.min(), place, style, views[errors.argmin()]))
    return [fit[1:] for fit in sorted(fits, key=lambda fit: fit[0])[:BACKGROUNDS]]


def _errors(picture: np.ndarray, places: list[tuple[str, str, np.ndarray]]) -> np.ndarray:
    """Return the squared distances of a picture (768,) from each place with each of the things in it, (places, N).

    With a = cover, p = the place, t = the thing in its style, d = picture - p, a rendering is p - a p + t, and its distance
    |d|^2 + |t|^2 + |a p|^2 - 2 d t + 2 d a p - 2 t a p. In its style the thing is matrix @ look + a black.
    """
    things = _things()
    on_look, on_covered, on_cover, on_square, constant = [], [], [], [], []
    for _, style, place in places:
        matrix, black = _styles()[style]
        d, p = (picture - place).reshape(-1, 3), place.reshape(-1, 3)
        on_look.append((d @ matrix).ravel())
        on_covered.append((p @ matrix).ravel())
        on_cover.append((d * p).sum(1) - d @ black)
        on_square.append(np.square(p).sum(1) - 2 * p @ black)
        constant.append(np.square(d).sum() + things.squares[style])
    of_looks = things.colours @ np.stack(on_look, 1) + things.covered @ np.stack(on_covered, 1)
    of_shapes = 2 * things.cover @ np.stack(on_cover, 1) + np.square(things.cover) @ np.stack(on_square, 1)
    return np.stack(constant) + (of_shapes[things.shape] - 2 * of_looks).T


def _nearest(picture: np.ndarray) -> Verdict:
    """Find the nearest rendering of a picture (768,)."""
    things, places = _things(), _likely_places(picture)
    errors = _errors(picture, places).clip(min=0)
    at, look = np.unravel_index(errors.argmin(), errors.shape)
    place, style, view = places[at]
    thing, colour = things.names[look]
    cover = things.cover[things.shape[look]]
    rendering = view * (1 - np.repeat(cover, 3)) + _styled(things.colours[look][None], cover[None], style)[0]
    other = errors[:, things.names[:, 0] != thing].min()
    error, other = (float(np.sqrt(e / len(picture))) for e in (errors[at, look], other))
    likeness = float(np.corrcoef(picture, rendering)[0, 1])
    return Verdict(str(thing), str(colour), place, style, round(likeness, 3), round(error, 4), round(1 - error / other, 3))
