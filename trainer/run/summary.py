"""What came of a run, in sentences. Plain data, no torch."""

from .messages import Message, message
from .run_dir import RunDir

_MEASURED = {
    "held_out": message("held-out photos"),
    "trained": message("trained photos"),
    "class": message("class images"),
}


def summary(run_dir: RunDir) -> list[Message]:
    """Return what came of a finished run, a sentence a fact. Raises OSError or ValueError for a run that has no result."""
    result, losses, steps = run_dir.result(), run_dir.losses(), run_dir.steps_done()
    last = losses[-100:]
    lines = [
        message(
            "{steps} steps, mean loss of the last {count}: {mean:.4f}",
            steps=steps,
            count=len(last),
            mean=sum(last) / max(len(last), 1),
        )
    ]
    exported = result["exported"]
    if exported.get("finished_early"):
        asked = run_dir.load_run().settings.training.steps
        lines.append(message("Finished by you after {steps} of {asked} steps", steps=steps, asked=asked))
    if exported["weights"] == "ema":
        lines.append(message("Exported: the averaged weights after step {step}", step=exported["step"]))
    elif exported["step"] != steps:
        lines.append(message("Exported: the weights after step {step}", step=exported["step"]))
    return [*lines, *_measurements(run_dir.measurements()), *map(Message.from_json, result["warnings"])]


def stopped(run_dir: RunDir, steps: int) -> Message | None:
    """Return how far a run of so many steps came that was stopped before its end; None without a state to go on from."""
    step = run_dir.saved_step()
    if step is None or run_dir.finished:
        return None
    return message(
        "Stopped: the state after step {step} of {steps} is saved. Queue the graph again to go on.", step=step, steps=steps
    )


def _measurements(measured: list[dict]) -> list[Message]:
    lines = []
    for name, photos in _MEASURED.items():
        if measured and name in measured[-1]:
            best = min(measured, key=lambda m: m[name])
            lines.append(
                message(
                    "Loss on {photos}: {first:.4f} before, {last:.4f} at the end, lowest {best:.4f} at {step}",
                    photos=photos,
                    first=measured[0][name],
                    last=measured[-1][name],
                    best=best[name],
                    step=best["step"],
                )
            )
    return lines
