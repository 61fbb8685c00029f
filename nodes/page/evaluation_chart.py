"""What EvaluateSubject has measured as a picture: bars of one set of numbers, curves of several steps."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from ..similarity import Scores
from .loss_chart import MEASURED, picture, write_label

ROW, LABELS, WIDTH, MARGIN = 22, 210, 640, 12
"""Height of a bar with its gap, width of what stands before it, width of the picture, in pixels."""
COLOURS = {"dataset": "#3aa76d", "pictures_before": "#8aa4c8", "pictures": "#2f7ff0"}
OTHER = "#a66bd4"
CURVES = {"likeness": ("likeness", "#2f7ff0", 3), "copying": ("copying", "#d0453f", 2), "variety": ("variety", "#3aa76d", 2)}


def draw_bars(rows: Mapping[str, Scores], single: Mapping[str, float]) -> Image.Image:
    """Return the numbers as bars from 0 to 1, those of a kind below each other."""
    columns = vars(rows["pictures"])
    bars = [(f"{name}, {row}", getattr(scores, name), COLOURS[row]) for name in columns for row, scores in rows.items()]
    bars += [(name, value, OTHER) for name, value in single.items()]
    bars = [bar for bar in bars if math.isfinite(bar[1])]
    image = Image.new("RGB", (WIDTH, 2 * MARGIN + ROW * len(bars)), "white")
    write, longest = ImageDraw.Draw(image), WIDTH - LABELS - 60
    for number, (label, value, colour) in enumerate(bars):
        top = MARGIN + ROW * number
        length = longest * min(max(value, 0.0), 1.0)
        write_label(write, (LABELS - 8, top + ROW / 2), label, "rm")
        write.rectangle((LABELS, top + 4, LABELS + length, top + ROW - 4), colour)
        write_label(write, (LABELS + length + 6, top + ROW / 2), f"{value:.3f}", "lm")
    return image


def curves_over_steps(entries: Sequence[dict], measurements: Sequence[dict]) -> Image.Image:
    """Return likeness, copying and variety over the steps, and below it the losses that were measured on fixed noise."""
    charts = [picture(curves) for curves in (_curves(entries, CURVES), _curves(measurements, MEASURED)) if curves]
    image = Image.new("RGB", (charts[0].width, sum(chart.height for chart in charts)))
    for number, chart in enumerate(charts):
        image.paste(chart, (0, number * charts[0].height))
    return image


def _curves(entries: Sequence[dict], styles: Mapping[str, tuple[str, str, int]]) -> list:
    """Return label, colour, width and points (step, value) of each number that the entries have."""
    found = {name: [(entry["step"], entry[name]) for entry in entries if name in entry] for name in styles}
    return [(*styles[name], points) for name, points in found.items() if points]
