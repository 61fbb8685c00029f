"""The training loop that both recipes run."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from .checkpoint import load_state, save_state
from .config import Settings
from .events import Reporter, Stopped, StopRequest
from .rundir import RunDir, partial_file

MAX_GRAD_NORM = 1.0
FLUSH_SECONDS = 1.0


class TrainingError(Exception):
    """A run that cannot go on, with a sentence for the artist."""


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Accelerator for `device` ("cpu", "cuda:0", "mps") whose autocast is of `precision` (one of PRECISIONS)."""
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))
    if precision == "fp16" and device == "cpu":
        raise TrainingError("fp16 training needs a GPU. Choose precision auto or fp32.")
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device == "cpu")


class Metrics:
    """Losses on their way to metrics.jsonl. They stay on the device until `flush`, the loop's only synchronisation."""

    def __init__(self, run_dir: RunDir, start: int):
        kept: list[str] = []
        if start and run_dir.metrics.is_file():  # lines after the checkpoint belong to steps that will run again
            kept = run_dir.metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:start]
        with partial_file(run_dir.metrics) as partial:
            partial.write_text("".join(kept), encoding="utf-8")
        self._file = run_dir.metrics.open("a", encoding="utf-8")
        self._pending: list[tuple[int, Tensor, float]] = []
        self._flushed = time.monotonic()

    def add(self, step: int, loss: Tensor, learning_rate: float) -> None:
        self._pending.append((step, loss.detach(), learning_rate))

    @property
    def due(self) -> bool:
        return time.monotonic() - self._flushed >= FLUSH_SECONDS

    def flush(self) -> float:
        """Write what is pending; the newest loss. Raises TrainingError when a loss is not a number."""
        losses = torch.stack([loss for _, loss, _ in self._pending]).tolist() if self._pending else []
        for (step, _, learning_rate), loss in zip(self._pending, losses, strict=True):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss became {loss} at step {step + 1}: training diverged. "
                    "Lower the learning rate, or set precision to fp32."
                )
            self._file.write(json.dumps({"step": step + 1, "loss": loss, "learning_rate": learning_rate}) + "\n")
        self._file.flush()
        self._pending.clear()
        self._flushed = time.monotonic()
        return losses[-1] if losses else math.nan


def run_steps(
    *,
    params: Mapping[str, nn.Parameter],
    loss_of: Callable[[int], Tensor],
    settings: Settings,
    run_dir: RunDir,
    accelerator: Accelerator,
    reporter: Reporter,
    stop: StopRequest,
) -> None:
    """Train `params` (fp32, on the device) from the newest saved state to `settings.steps`.

    `loss_of` gives the scalar loss of a step (0, 1, ...), a pure function of it and of `params`. Raises Stopped, with the
    state saved, when asked to stop, and TrainingError when the loss is not finite.
    """
    optimizer = accelerator.prepare(
        torch.optim.AdamW(
            params.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
    )
    # The schedule is a function of the step alone: taken from diffusers, applied here, nothing to restore.
    rate_at = get_scheduler(
        "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler,
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.steps,
    ).lr_lambdas[0]
    start = load_state(run_dir.checkpoint, params, optimizer, accelerator)
    if start:
        print(f"resuming after step {start}", file=sys.stderr, flush=True)
    metrics = Metrics(run_dir, start)
    reporter.phase("training", settings.steps)
    began = time.monotonic()
    for step in range(start, settings.steps):
        learning_rate = settings.learning_rate * rate_at(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        with accelerator.autocast():
            loss = loss_of(step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(params.values(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        metrics.add(step, loss, learning_rate)

        done = step + 1
        if metrics.due or stop or done == settings.steps:
            newest = metrics.flush()
            left = (time.monotonic() - began) / (done - start) * (settings.steps - done)
            reporter.step(done, settings.steps, loss=newest, seconds_left=left)
        # After the last step too: the export may fail for want of disk space.
        if stop or done % settings.checkpoint_every == 0 or done == settings.steps:
            metrics.flush()
            check_finite(params)
            save_state(run_dir.checkpoint, done, params, optimizer, accelerator)
            if stop:
                raise Stopped


def check_finite(params: Mapping[str, nn.Parameter]) -> None:
    """TrainingError when a weight is NaN or infinite: such a state is neither saved nor exported."""
    if not torch.stack([p.detach().isfinite().all() for p in params.values()]).all():
        raise TrainingError("The trained weights are no longer numbers: training diverged. Lower the learning rate.")
