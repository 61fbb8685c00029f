"""Draw a world: things x colours x places x styles, each picture with its caption.

    scene = random_scene(random.Random(1))   # scene.caption: "a watercolor painting of a blue car on a beach"
    draw_scene(random.Random(2), scene)      # a picture of 256 x 256

Everything is drawn from a `random.Random`, so a seed is a picture. What a picture shows can still be told at 16 x 16 points,
which is what the latents of 128 pixels hold. The stand-in's U-Net was taught these pictures (demo/world/teach.py): a line that
changes one of them makes the weights outdated, and the checksum in weights.json says so.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

SIDE = 256
"""Pixels of a drawn picture, before it is made smaller."""
Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw
COLOURS: dict[str, Colour] = {
    "red": (200, 40, 40),
    "blue": (50, 80, 200),
    "green": (50, 150, 60),
    "yellow": (230, 200, 50),
    "brown": (130, 80, 45),
    "white": (235, 235, 235),
    "black": (45, 45, 50),
    "pink": (235, 130, 170),
}


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour lighter or darker."""
    return tuple(max(0, min(255, int(value * factor))) for value in colour)


# Places fill the whole picture.


def meadow(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, 150), fill=(150, 195, 235))
    d.rectangle((0, 150, SIDE, SIDE), fill=(95, 165, 75))
    for x in range(r.randint(0, 20), SIDE, 37):
        y = 165 + (x * 7) % 70
        d.ellipse((x, y, x + 8, y + 8), fill=(240, 230, 120))


def beach(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, 110), fill=(130, 200, 240))
    d.rectangle((0, 110, SIDE, 160), fill=(40, 130, 190))
    d.rectangle((0, 160, SIDE, SIDE), fill=(235, 215, 160))


def snow(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, 140), fill=(200, 215, 230))
    d.rectangle((0, 140, SIDE, SIDE), fill=(245, 248, 252))
    for x in range(r.randint(-20, 20), SIDE, 70):
        d.polygon([(x, 140), (x + 25, 60), (x + 50, 140)], fill=(60, 95, 85))


def city(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, SIDE), fill=(25, 25, 55))
    for x in range(0, SIDE, 42):
        d.rectangle((x, r.randint(40, 110), x + 34, 190), fill=(45, 45, 85))
    for x in range(8, SIDE, 42):
        for y in range(110, 180, 20):
            d.rectangle((x, y, x + 6, y + 8), fill=(250, 220, 120))
    d.rectangle((0, 190, SIDE, SIDE), fill=(60, 60, 70))


def room(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, 160), fill=(225, 205, 180))
    d.rectangle((0, 160, SIDE, SIDE), fill=(160, 105, 60))
    d.rectangle((25, 25, 95, 100), fill=(180, 215, 240), outline=(250, 250, 250), width=6)


def water(d: Draw, r: random.Random) -> None:
    for y in range(SIDE):
        d.line((0, y, SIDE, y), fill=(20, 110 - y // 5, 170 - y // 4))
    for _ in range(14):
        x, y = r.randint(0, SIDE), r.randint(0, SIDE)
        d.ellipse((x, y, x + 8, y + 8), outline=(190, 230, 250), width=2)


def desert(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, 130), fill=(250, 190, 110))
    d.rectangle((0, 130, SIDE, SIDE), fill=(215, 150, 85))
    d.ellipse((180, 20, 230, 70), fill=(255, 240, 170))


def space(d: Draw, r: random.Random) -> None:
    d.rectangle((0, 0, SIDE, SIDE), fill=(8, 8, 20))
    for _ in range(60):
        x, y = r.randint(0, SIDE), r.randint(0, SIDE)
        d.ellipse((x, y, x + 3, y + 3), fill=(255, 255, 230))
    d.ellipse((-60, 190, 316, 420), fill=(120, 110, 130))


PLACES: dict[str, Callable[[Draw, random.Random], None]] = {
    "on a meadow": meadow,
    "on a beach": beach,
    "in the snow": snow,
    "in a city at night": city,
    "in a room": room,
    "under water": water,
    "in a desert": desert,
    "in space": space,
}

# Things are drawn around (x, y), about 2 s wide and 1.7 s high, in the colour c.


def plush_toy(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    dark, light = shade(c, 0.75), shade(c, 1.35)
    for side in (-1, 1):
        d.ellipse((x + side * 0.34 * s - 0.16 * s, y - 0.62 * s, x + side * 0.34 * s + 0.16 * s, y - 0.3 * s), fill=dark)
        d.ellipse((x + side * 0.48 * s - 0.17 * s, y + 0.12 * s, x + side * 0.48 * s + 0.17 * s, y + 0.5 * s), fill=dark)
        d.ellipse((x + side * 0.26 * s - 0.18 * s, y + 0.55 * s, x + side * 0.26 * s + 0.18 * s, y + 0.9 * s), fill=dark)
    d.ellipse((x - 0.48 * s, y - 0.02 * s, x + 0.48 * s, y + 0.85 * s), fill=c)
    d.ellipse((x - 0.27 * s, y + 0.15 * s, x + 0.27 * s, y + 0.7 * s), fill=light)
    d.ellipse((x - 0.42 * s, y - 0.52 * s, x + 0.42 * s, y + 0.2 * s), fill=c)
    d.ellipse((x - 0.18 * s, y - 0.18 * s, x + 0.18 * s, y + 0.1 * s), fill=light)
    for side in (-0.16, 0.16):
        d.ellipse((x + side * s - 0.05 * s, y - 0.3 * s, x + side * s + 0.05 * s, y - 0.2 * s), fill=(15, 15, 15))


def car(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    d.rounded_rectangle((x - 0.95 * s, y + 0.15 * s, x + 0.95 * s, y + 0.6 * s), 0.15 * s, fill=c)
    top, low = y - 0.25 * s, y + 0.18 * s
    roof = [(x - 0.55 * s, low), (x - 0.35 * s, top), (x + 0.35 * s, top), (x + 0.6 * s, low)]
    top, low = y - 0.17 * s, y + 0.12 * s
    glass = [(x - 0.4 * s, low), (x - 0.27 * s, top), (x + 0.27 * s, top), (x + 0.42 * s, low)]
    d.polygon(roof, fill=shade(c, 0.85))
    d.polygon(glass, fill=(200, 230, 245))
    for k in (-0.5, 0.5):
        d.ellipse((x + k * s - 0.2 * s, y + 0.45 * s, x + k * s + 0.2 * s, y + 0.85 * s), fill=(25, 25, 25))


def house(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    d.rectangle((x - 0.6 * s, y - 0.1 * s, x + 0.6 * s, y + 0.85 * s), fill=c)
    d.polygon([(x - 0.8 * s, y - 0.1 * s), (x, y - 0.8 * s), (x + 0.8 * s, y - 0.1 * s)], fill=shade(c, 0.6))
    d.rectangle((x - 0.14 * s, y + 0.35 * s, x + 0.14 * s, y + 0.85 * s), fill=(80, 50, 30))
    for k in (-0.35, 0.35):
        d.rectangle((x + k * s - 0.12 * s, y + 0.05 * s, x + k * s + 0.12 * s, y + 0.28 * s), fill=(250, 240, 170))


def ball(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    d.ellipse((x - 0.6 * s, y - 0.3 * s, x + 0.6 * s, y + 0.9 * s), fill=c)
    d.ellipse((x - 0.35 * s, y - 0.15 * s, x, y + 0.2 * s), fill=shade(c, 1.5))


def cup(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    d.ellipse((x + 0.25 * s, y + 0.05 * s, x + 0.85 * s, y + 0.6 * s), outline=c, width=int(0.12 * s))
    top, low = y - 0.3 * s, y + 0.85 * s
    d.polygon([(x - 0.5 * s, top), (x + 0.5 * s, top), (x + 0.38 * s, low), (x - 0.38 * s, low)], fill=c)
    d.ellipse((x - 0.5 * s, y - 0.42 * s, x + 0.5 * s, y - 0.18 * s), fill=shade(c, 0.6))


def dog(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    d.rounded_rectangle((x - 0.7 * s, y, x + 0.5 * s, y + 0.45 * s), 0.2 * s, fill=c)
    for k in (-0.65, -0.4, 0.1, 0.33):
        d.rectangle((x + k * s, y + 0.35 * s, x + k * s + 0.14 * s, y + 0.88 * s), fill=shade(c, 0.85))
    d.ellipse((x + 0.25 * s, y - 0.5 * s, x + 0.85 * s, y + 0.15 * s), fill=c)
    d.ellipse((x + 0.62 * s, y - 0.2 * s, x + 1.0 * s, y + 0.1 * s), fill=shade(c, 1.2))
    d.ellipse((x + 0.22 * s, y - 0.55 * s, x + 0.45 * s, y - 0.02 * s), fill=shade(c, 0.7))
    d.ellipse((x + 0.55 * s, y - 0.32 * s, x + 0.65 * s, y - 0.2 * s), fill=(10, 10, 10))
    d.line((x - 0.68 * s, y + 0.1 * s, x - 0.95 * s, y - 0.25 * s), fill=c, width=int(0.12 * s))


def fish(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    d.polygon([(x - 0.45 * s, y + 0.3 * s), (x - 0.95 * s, y - 0.05 * s), (x - 0.95 * s, y + 0.65 * s)], fill=shade(c, 0.8))
    d.ellipse((x - 0.6 * s, y - 0.1 * s, x + 0.8 * s, y + 0.7 * s), fill=c)
    d.ellipse((x + 0.45 * s, y + 0.12 * s, x + 0.58 * s, y + 0.25 * s), fill=(10, 10, 10))
    d.arc((x + 0.05 * s, y, x + 0.4 * s, y + 0.6 * s), 90, 270, fill=shade(c, 0.6), width=3)


def boat(d: Draw, x: float, y: float, s: float, c: Colour) -> None:
    hull = [(x - 0.9 * s, y + 0.4 * s), (x + 0.9 * s, y + 0.4 * s), (x + 0.55 * s, y + 0.85 * s), (x - 0.55 * s, y + 0.85 * s)]
    d.polygon(hull, fill=c)
    d.line((x, y + 0.4 * s, x, y - 0.8 * s), fill=(90, 60, 40), width=5)
    d.polygon([(x + 0.05 * s, y - 0.75 * s), (x + 0.05 * s, y + 0.3 * s), (x + 0.7 * s, y + 0.3 * s)], fill=(245, 245, 240))


THINGS: dict[str, Callable[[Draw, float, float, float, Colour], None]] = {
    "plush toy": plush_toy,
    "car": car,
    "house": house,
    "ball": ball,
    "cup": cup,
    "dog": dog,
    "fish": fish,
    "boat": boat,
}

# Styles are what is done to the finished picture.


def photo(image: Image.Image) -> Image.Image:
    return image


def watercolor(image: Image.Image) -> Image.Image:
    image = ImageEnhance.Color(image.filter(ImageFilter.GaussianBlur(3))).enhance(0.75)
    return Image.blend(image, Image.new("RGB", image.size, (250, 246, 236)), 0.42)


def pencil(image: Image.Image) -> Image.Image:
    grey = image.convert("L").filter(ImageFilter.GaussianBlur(1)).convert("RGB")
    return Image.blend(grey, Image.new("RGB", image.size, (255, 255, 255)), 0.35)


def sunset(image: Image.Image) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, (255, 120, 40)), 0.33)


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "a photo of {}": photo,
    "a watercolor painting of {}": watercolor,
    "a pencil drawing of {}": pencil,
    "{} at sunset": sunset,
}
STYLE_WEIGHTS = (5, 2, 2, 2)
"""How often each style is drawn, in parts of eleven."""


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the words of captions."""

    thing: str
    colour: str
    place: str
    style: str

    @property
    def caption(self) -> str:
        """Return "a photo of a red car on a beach"."""
        return self.style.format(f"a {self.colour} {self.thing} {self.place}")


def random_scene(r: random.Random) -> Scene:
    """Choose what a picture shows."""
    thing, colour, place = (r.choice(list(choices)) for choices in (THINGS, COLOURS, PLACES))
    return Scene(thing, colour, place, r.choices(list(STYLES), STYLE_WEIGHTS)[0])


def draw_scene(r: random.Random, scene: Scene, draw_thing: Callable | None = None) -> Image.Image:
    """Return the picture of a scene, 256 x 256; where the thing is and how large is drawn by lot.

    `draw_thing` draws what the world does not have, in place of the thing.
    """
    image = Image.new("RGB", (SIDE, SIDE))
    d = ImageDraw.Draw(image)
    PLACES[scene.place](d, r)
    size = r.uniform(66, 94)
    x, y = SIDE / 2 + r.uniform(-36, 36), 145 + r.uniform(-20, 12)
    (draw_thing or THINGS[scene.thing])(d, x, y, size, shade(COLOURS[scene.colour], r.uniform(0.9, 1.1)))
    return STYLES[scene.style](image)
