"""What EvaluateSubject has measured of the steps of a run: a line each of evaluations.jsonl. Plain data, no torch."""

from collections.abc import Sequence


def latest_by_step(entries: Sequence[dict]) -> list[dict]:
    """Return the newest entry of each step, in the order of the steps."""
    return [entry for _, entry in sorted({entry["step"]: entry for entry in entries if "likeness" in entry}.items())]


def step_to_use(entries: Sequence[dict]) -> int:
    """Return the step of the highest likeness, of those whose share of copied pictures is the lowest; the first of equals."""
    return min(entries, key=lambda entry: (entry.get("copied", 0.0), -entry["likeness"], entry["step"]))["step"]
