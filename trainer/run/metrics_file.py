"""metrics.jsonl: one line a step (step, learning_rate, loss), one a measurement (step, held_out, trained, class).

Where something is trained beside the photos, as class images are, a step has the instance_loss too, that of the photos alone.

A step that was skipped, because a gradient was not finite, has skipped 1, and no loss when that was not finite either.

Plain data, no torch.
"""

import json
from contextlib import suppress
from pathlib import Path

from .files import read_bytes

MAX_BYTES = 100_000_000
"""More than the longest run writes: 200,000 steps, each with a line of its own and a measurement."""
MEASURED = ("class", "held_out", "trained")
"""What a measurement has losses of."""
LARGEST = 1e100
"""So far a number may go: no sum of them is infinite."""
MAX_TEXT = 200
"""So many characters a text may have."""


def read_metrics(path: Path, most: int = MAX_BYTES, text: str = "") -> list[dict]:
    """Return the entries of metrics.jsonl, {"step": n, name: number, ...}, which may have a text of the name `text` beside them.

    Other lines, as a power loss may leave, are passed over; without a file there are none. Raises UserError for a file of more
    than `most` bytes.
    """
    lines = read_bytes(path, most).split(b"\n") if path.is_file() else ()
    return [entry for entry in (metrics_entry(line, text) for line in lines) if entry]


def metrics_entry(line: bytes, text: str = "") -> dict | None:
    """Return what a line of metrics.jsonl says; None where that is not numbers by name, the step among them, and the text."""
    with suppress(ValueError, RecursionError, OverflowError):
        entry = json.loads(line)
        if (
            isinstance(entry, dict)
            and "step" in entry
            and all(_is_text(v) if n == text else _is_number(v) for n, v in entry.items())
        ):
            return entry
    return None


def is_measurement(entry: dict) -> bool:
    """Return whether an entry is a measurement, not a step."""
    return "learning_rate" not in entry and "loss" not in entry


def photos_loss(entry: dict) -> float:
    """Return the loss of a step's photos alone."""
    return entry.get("instance_loss", entry["loss"])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT
