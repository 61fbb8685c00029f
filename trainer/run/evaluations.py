"""What EvaluateSubject has measured of the steps of a run: a line each of evaluations.jsonl. Plain data, no torch."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..dataset.photos import Dataset
from .files import partial_file
from .metrics_file import read_metrics

MAX_BYTES = 5_000_000
"""More than 10,000 evaluations write."""
MEASURED_WITH, PHOTOS_COPIED = "measured_with", "photos_copied"
"""What an entry has beside the numbers of its pictures: what `measured_with` returns, and `copied` of the photos themselves."""


def measured_with(encoder: str, dataset: Dataset, threshold: float) -> str:
    """Return what numbers are measured with, to be read and to be compared: those of another encoder are other numbers."""
    photos = sorted((photo.sha256, photo.mask_sha256 if dataset.masked else "") for photo in dataset.photos)
    deciding = json.dumps([encoder, photos, dataset.resolution, dataset.crop, threshold])
    return f"{encoder.split()[0]}-{len(photos)}-photos-{hashlib.sha256(deciding.encode()).hexdigest()[:12]}"


def read_evaluations(path: Path) -> list[dict]:
    """Return the entries of an evaluations.jsonl. Raises UserError for a file that is too large."""
    return read_metrics(path, MAX_BYTES, MEASURED_WITH)


def append_evaluation(path: Path, entry: dict) -> list[dict]:
    """Write an entry after those that the file has, whole or not at all, and return all of them."""
    entries = [*read_evaluations(path), entry]
    with partial_file(path) as partial:
        partial.write_text("".join(json.dumps(e) + "\n" for e in entries), encoding="utf-8")
    return entries


def latest_by_step(entries: Sequence[dict]) -> list[dict]:
    """Return the newest entry of each step, in the order of the steps, of those measured with what the newest of all was."""
    found = [entry for entry in entries if "likeness" in entry]
    alike = {entry["step"]: entry for entry in found if entry.get(MEASURED_WITH) == found[-1].get(MEASURED_WITH)}
    return [entry for _, entry in sorted(alike.items())]


def step_to_use(entries: Sequence[dict]) -> int:
    """Return the step of the highest likeness, of those whose share of copied pictures is the lowest; the first of equals.

    Pictures that are as near to the photos as these are to each other are no copies: such a share counts as none.
    """

    def rank(entry: dict) -> tuple[float, float, int]:
        copied = entry.get("copied", 0.0)
        return copied if copied > entry.get(PHOTOS_COPIED, 0.0) else 0.0, -entry["likeness"], entry["step"]

    return min(entries, key=rank)["step"]
