"""The losses of a run on their way to metrics.jsonl."""

import json
import math
import os
import time

import psutil
import torch
from torch import Tensor

from ..context import TrainingError
from ..run.files import partial_file
from ..run.metrics_file import read_metrics
from ..run.run_dir import RunDir

FLUSH_SECONDS = 1.0


class Metrics:
    """Losses stay on the device until `flush`, which is the training loop's only synchronisation."""

    def __init__(self, run_dir: RunDir, start: int, writes: bool):
        """Keep the entries up to step `start`, that of the saved state: later steps will run again. `writes`: to the file."""
        kept = [entry for entry in read_metrics(run_dir.metrics) if entry["step"] <= start] if start else []
        self.measured: list[dict] = [entry for entry in kept if "loss" not in entry]
        """Measurements so far, {"step": ..., "held_out": ...}."""
        self._file = None
        if writes:
            with partial_file(run_dir.metrics) as partial:
                partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
            self._file = run_dir.metrics.open("a", encoding="utf-8")
        self._pending: list[tuple[int, Tensor, float]] = []
        self._flushed = time.monotonic()

    def add(self, step: int, loss: Tensor, learning_rate: float) -> None:
        """Note the loss of the `step`-th step (1, 2, ...); nothing waits for the device."""
        self._pending.append((step, loss.detach(), learning_rate))

    def add_measurement(self, step: int, losses: dict[str, float]) -> None:
        """Write the losses that were measured after `step` steps."""
        self.flush()
        self.measured.append({"step": step, **losses})
        self._write(self.measured[-1])

    @property
    def is_due(self) -> bool:
        """Return whether the last flush is long enough ago."""
        return time.monotonic() - self._flushed >= FLUSH_SECONDS

    def flush(self) -> float:
        """Write what is pending and return the newest loss. Raises TrainingError when a loss is not a number, or exactly 0."""
        losses = torch.stack([loss for _, loss, _ in self._pending]).tolist() if self._pending else []
        for (step, _, learning_rate), loss in zip(self._pending, losses, strict=True):
            _check_loss(step, loss)
            self._write({"step": step, "loss": loss, "learning_rate": learning_rate})
        if self._file:
            self._file.flush()
        self._pending.clear()
        self._flushed = time.monotonic()
        return losses[-1] if losses else math.nan

    def sync(self) -> None:
        """Flush, and on to the disk: a saved state must not be newer than its metrics, whatever happens then."""
        self.flush()
        if self._file:
            os.fsync(self._file.fileno())

    def _write(self, entry: dict) -> None:
        if self._file:
            self._file.write(json.dumps(entry) + "\n")


def _check_loss(step: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            "The loss became {loss} at step {step}: training diverged. Lower the learning rate, or set precision to fp32.",
            loss=loss,
            step=step,
        )
    if loss == 0:  # noise cannot be predicted exactly
        raise TrainingError(
            "The loss became exactly 0 at step {step}: the model or the photos' latents are broken. Try another base "
            "checkpoint, or set precision to fp32.",
            step=step,
        )


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that this process holds, at its peak on CUDA, now elsewhere. Asks no device to finish its work."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else psutil.Process().memory_info().rss
