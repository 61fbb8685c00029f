"""The curves of a run as a picture, for whoever has no page of ours: the queue, API clients, phones."""

from collections.abc import Sequence
from contextlib import suppress

from PIL import Image, ImageDraw, ImageFont

from ...trainer.run.files import partial_file
from ...trainer.run.run_dir import RunDir
from .run_card import curves_of

SIZE = (640, 360)
LEFT, TOP, RIGHT, BOTTOM = 64, 34, 16, 40
"""Margins of the plot, in pixels."""
CURVES = {"mean": ("loss", "#8aa4c8", 1), "smooth": ("smoothed", "#2f7ff0", 3)}
MEASURED = {"held_out": ("held-out", "#e8833a", 3), "trained": ("trained", "#3aa76d", 2), "class": ("class", "#a66bd4", 2)}
"""Label, colour and width of each curve: the colours of js/logic/curves.js."""
TICKS = 5

Points = list[tuple[float, float]]


def draw_loss_chart(run_dir: RunDir) -> None:
    """Draw the curves of a run that has any, unless the picture is there and as new as they are."""
    chart, metrics = run_dir.loss_chart, run_dir.metrics
    with suppress(OSError):  # a full disk: the result is worth more than its picture
        if chart.is_file() and chart.stat().st_mtime >= metrics.stat().st_mtime:
            return
        curves = _curves(run_dir)
        if curves:
            with partial_file(chart) as partial:
                picture(curves).save(partial, "PNG")


def _curves(run_dir: RunDir) -> list[tuple[str, str, int, Points]]:
    """Return label, colour, width and points (step, loss) of each curve."""
    tables, found = curves_of(run_dir.metrics).points(), []
    for table, known in ((tables["loss"], CURVES), (tables["measured"], MEASURED)):
        for name, style in known.items():
            pairs = zip(table.get("step", ()), table.get(name, ()), strict=False)
            points = [(step, value) for step, value in pairs if step is not None and value is not None]
            found += [(*style, points)] if points else []
    return found


def picture(curves: Sequence[tuple[str, str, int, Points]]) -> Image.Image:
    """Return the curves over their steps, with axes and labels."""
    image = Image.new("RGB", SIZE, "white")
    write = ImageDraw.Draw(image)
    steps, values = zip(*(point for *_, points in curves for point in points), strict=True)
    (x0, x1), (y0, y1) = _bounds(steps), _bounds(values)
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        return LEFT + width * (step - x0) / (x1 - x0), TOP + height * (1 - (value - y0) / (y1 - y0))

    for tick in range(TICKS):
        step, value = x0 + (x1 - x0) * tick / (TICKS - 1), y0 + (y1 - y0) * tick / (TICKS - 1)
        write.line([place(x0, value), place(x1, value)], "#dddddd")
        write_label(write, (LEFT - 8, place(x0, value)[1]), f"{value:.3g}", "rm")
        write_label(write, (place(step, y0)[0], TOP + height + 8), f"{step:.0f}", "mt")
    label_at: float = LEFT
    for label, colour, line, points in curves:
        spots = [place(*point) for point in points]
        write.line(spots if len(spots) > 1 else [spots[0], (spots[0][0] + 3, spots[0][1])], colour, line)
        label_at = 18 + write_label(write, (label_at, 10), label, "lt", colour)
    write_label(write, (LEFT + width, TOP + height + 22), "step", "rt")
    return image


def write_label(write: ImageDraw.ImageDraw, place: tuple[float, float], text: str, anchor: str, colour: str = "#444444") -> float:
    """Write a few words at a place, and return where they end."""
    font = ImageFont.load_default(13)
    write.text(place, text, colour, font, anchor)
    return place[0] + write.textlength(text, font)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return between which numbers the values lie, never the same two."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, low + 0.5)
