"""Draw a photo set for tests and benchmarks: one plush toy in front of four backgrounds, with a caption beside each picture.

The demo has photos of its own, of a subject in the stand-in's drawn world (demo/world/subject.py).

python demo/photos.py FOLDER
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE = 512
SCENES = {
    "on a meadow": ((148, 190, 226), (96, 158, 72)),
    "on a beach": ((120, 186, 214), (226, 204, 150)),
    "on a wooden floor": ((222, 206, 184), (150, 104, 66)),
    "in the snow": ((176, 196, 222), (240, 244, 248)),
}
FUR, BELLY, DARK, SNOUT = (126, 74, 44), (226, 178, 120), (46, 28, 22), (232, 150, 140)


def draw_toy(picture: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A sitting boar piglet of plush, 360 pixels high, its middle at (x, y)."""

    def oval(dx: int, dy: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        picture.ellipse((x + dx - width, y + dy - height, x + dx + width, y + dy + height), colour)

    for side in (-1, 1):
        oval(side * 92, 140, 46, 34, DARK)  # feet
        oval(side * 118, 40, 34, 62, FUR)  # arms
        oval(side * 84, -176, 34, 44, FUR)  # ears
        oval(side * 84, -170, 18, 26, SNOUT)
    oval(0, 66, 118, 112, FUR)
    oval(0, 84, 72, 78, BELLY)
    for stripe in (-1, 0, 1):
        picture.line((x + stripe * 30, y + 20, x + stripe * 30, y + 148), DARK, 8)
    oval(0, -92, 112, 96, FUR)
    oval(0, -56, 52, 38, SNOUT)
    for side in (-1, 1):
        oval(side * 20, -56, 9, 13, DARK)
        oval(side * 48, -116, 20, 22, (250, 250, 250))
        oval(side * 46, -114, 11, 13, DARK)


def draw_photo(sky: tuple[int, int, int], ground: tuple[int, int, int], shift: int) -> Image.Image:
    photo = Image.new("RGB", (SIZE, SIZE), sky)
    picture = ImageDraw.Draw(photo)
    picture.rectangle((0, 330, SIZE, SIZE), ground)
    photo = photo.filter(ImageFilter.GaussianBlur(12))
    draw_toy(ImageDraw.Draw(photo), SIZE // 2 + shift, 270)
    return photo.filter(ImageFilter.GaussianBlur(1.5))


def draw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (place, (sky, ground)) in enumerate(SCENES.items()):
        name = f"plush-{number + 1}"
        draw_photo(sky, ground, shift=8 * number - 12).save(folder / f"{name}.jpg", quality=95)
        (folder / f"{name}.txt").write_text(f"a photo of a plush toy {place}\n", encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
