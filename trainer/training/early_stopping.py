"""Early stopping: what the loss on the held-out photos decides."""

PATIENCE = 3
"""So many measurements in a row without a new lowest held-out loss end the run."""


def best_step(measured: list[dict]) -> int:
    """Return the step with the lowest held-out loss, the first of equals; -1 without one. The base itself does not count."""
    trained = [m for m in measured if m["step"] > 0 and "held_out" in m]
    return min(trained, key=lambda m: m["held_out"])["step"] if trained else -1


def should_stop(measured: list[dict], early_stopping: str) -> bool:
    """Return whether the held-out loss has not fallen for PATIENCE measurements, in a run that asked to stop then."""
    if early_stopping != "stop_and_export_best":
        return False
    return sum(m["step"] > best_step(measured) for m in measured) >= PATIENCE
