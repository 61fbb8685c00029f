"""The losses of a run on their way to metrics.jsonl."""

import itertools
import json
import math
import os

import psutil
import torch
from torch import Tensor

from ..context import TrainingError
from ..run.files import partial_file
from ..run.metrics_file import is_measurement, read_metrics
from ..run.run_dir import RunDir


class Metrics:
    """Keeps the losses on the device until `flush`, which waits for it.

    Of a step nothing else does, but for optimizers that must be told whether its gradients are finite: see `update`.
    """

    def __init__(self, run_dir: RunDir, start: int, writes: bool):
        """Keep the entries up to step `start`, that of the saved state: later steps will run again. `writes`: to the file."""
        kept = [entry for entry in read_metrics(run_dir.metrics) if entry["step"] <= start] if start else []
        self.measured: list[dict] = [entry for entry in kept if is_measurement(entry)]
        """Measurements so far, {"step": ..., "held_out": ...}."""
        skipped = ["skipped" in entry for entry in kept if not is_measurement(entry)]
        self.skipped = sum(skipped)
        """Steps so far that changed nothing, because a gradient was not finite."""
        self.skipped_in_a_row = len(list(itertools.takewhile(bool, reversed(skipped))))
        """How many of the newest steps those are."""
        self._file = None
        if writes:
            with partial_file(run_dir.metrics) as partial:
                partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
            self._file = run_dir.metrics.open("a", encoding="utf-8")
        self._pending: list[tuple[int, Tensor, float]] = []
        self._newest = math.nan

    def add(self, step: int, losses: Tensor, learning_rate: float, skipped: Tensor) -> None:
        """Note the losses (2,) of the `step`-th step (1, 2, ...), that of the photos alone second, and whether it was skipped.

        That is () bool. Nothing waits for the device.
        """
        self._pending.append((step, torch.cat((losses.detach().float(), skipped.float()[None])), learning_rate))

    def add_measurement(self, step: int, losses: dict[str, float]) -> None:
        """Write the losses that were measured after `step` steps."""
        self.flush()
        self.measured.append({"step": step, **losses})
        self._write(self.measured[-1])

    def flush(self) -> float:
        """Write what is pending and return the newest loss of the photos alone, as the charts draw it.

        Raises TrainingError when a loss is exactly 0.
        """
        values = torch.stack([pending for _, pending, _ in self._pending]).tolist() if self._pending else []
        for (step, _, learning_rate), (loss, instance, skipped) in zip(self._pending, values, strict=True):
            _check_loss(step, loss)
            losses = {"loss": loss, **({"instance_loss": instance} if instance != loss else {})}
            finite = {name: value for name, value in losses.items() if math.isfinite(value)}
            self._write({"step": step, **finite, "learning_rate": learning_rate, **({"skipped": 1} if skipped else {})})
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
            self.skipped += bool(skipped)
            self._newest = instance
        if self._file:
            self._file.flush()
        self._pending.clear()
        return self._newest

    def sync(self) -> None:
        """Flush, and on to the disk: a saved state must not be newer than its metrics, whatever happens then."""
        self.flush()
        if self._file:
            os.fsync(self._file.fileno())

    def _write(self, entry: dict) -> None:
        if self._file:
            self._file.write(json.dumps(entry) + "\n")


def _check_loss(step: int, loss: float) -> None:
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
