"""The training loop that both recipes run."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import psutil
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from .checkpoint import load_best, load_state, save_best, save_state
from .config import Settings
from .events import Reporter, Stopped, StopRequest
from .optimizers import ParamGroup, make_optimizer
from .rundir import RunDir, partial_file, read_metrics

FLUSH_SECONDS = 1.0
PATIENCE = 3
"""Early stopping: so many measurements in a row without a new lowest held-out loss."""


class TrainingError(Exception):
    """A run that cannot go on, with a sentence for the artist."""


@dataclass(frozen=True)
class Trained:
    """Which weights `run_steps` has left in the parameters."""

    step: int
    averaged: bool
    finished_early: bool = False
    """The artist had seen enough."""

    def exported(self) -> dict:
        """What result.json says of them."""
        early = {"finished_early": True} if self.finished_early else {}
        return {"step": self.step, "weights": "ema" if self.averaged else "last", **early}


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Accelerator for `device` ("cpu", "cuda:0", "mps") whose autocast is of `precision` (one of PRECISIONS).

    Under accelerate's launcher each process gets the device that the launcher gives it.
    """
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in fp32
        if ":" in device and "LOCAL_RANK" not in os.environ:
            torch.cuda.set_device(torch.device(device))
    if precision == "fp16" and device == "cpu":
        raise TrainingError("fp16 training needs a GPU. Choose precision auto or fp32.")
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device == "cpu")


class Metrics:
    """Losses on their way to metrics.jsonl. They stay on the device until `flush`, the loop's only synchronisation."""

    def __init__(self, run_dir: RunDir, start: int, writes: bool):
        self.measured: list[dict] = []
        """Measurements so far, {"step": ..., "held_out": ...}."""
        # Entries after the checkpoint belong to steps that will run again.
        kept = [entry for entry in read_metrics(run_dir.metrics) if entry["step"] <= start] if start else []
        self.measured = [entry for entry in kept if "loss" not in entry]
        self._file = None
        if writes:
            with partial_file(run_dir.metrics) as partial:
                partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
            self._file = run_dir.metrics.open("a", encoding="utf-8")
        self._pending: list[tuple[int, Tensor, float]] = []
        self._flushed = time.monotonic()

    def add(self, step: int, loss: Tensor, learning_rate: float) -> None:
        self._pending.append((step, loss.detach(), learning_rate))

    def add_measurement(self, done: int, losses: dict[str, float]) -> None:
        self.flush()
        self.measured.append({"step": done, **losses})
        self._write(self.measured[-1])

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
            if loss == 0:  # noise cannot be predicted exactly
                raise TrainingError(
                    f"The loss became exactly 0 at step {step + 1}: the model or the photos' latents are broken. "
                    "Try another base checkpoint, or set precision to fp32."
                )
            self._write({"step": step + 1, "loss": loss, "learning_rate": learning_rate})
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


def run_steps(
    *,
    groups: list[ParamGroup],
    loss_of: Callable[[int], Tensor],
    settings: Settings,
    run_dir: RunDir,
    accelerator: Accelerator,
    reporter: Reporter,
    stop: StopRequest,
    measure: Callable[[], dict[str, float]] | None = None,
    draw: Callable[[int], None] | None = None,
    save: Callable[[Trained], None] | None = None,
    after_step: Callable[[], None] | None = None,
) -> Trained:
    """Train the groups' parameters from the newest saved state to `settings.steps`, or until the held-out loss turns up, or
    until `stop` asks for the result.

    `loss_of` gives the scalar loss of a batch (0, 1, ...), a pure function of it and of the parameters: step s averages the
    batches s * gradient_accumulation_steps onwards. `measure` gives the losses under fixed noise, `draw` makes the sample
    pictures and `save` writes a file after so many steps; they are called at their intervals, `save` also on a stop if the
    settings say so, on the weights that would be exported. `after_step` may change the parameters after each step. Raises
    Stopped, with the state saved, when asked to stop, and TrainingError when the loss is not finite.
    """
    params = {name: p for group in groups for name, p in group.params.items()}
    optimizer, warning = make_optimizer(groups, settings, accelerator.device)
    if warning:
        reporter.warning(warning)
    optimizer = accelerator.prepare(optimizer)
    ema = None
    if settings.ema_decay:  # warm-up: 1 - (1 + step)^-3/4, so that short runs are not held near the base
        ema = EMAModel(params.values(), decay=settings.ema_decay, use_ema_warmup=True, power=3 / 4, foreach=True)
    # The schedule is a function of the step alone: taken from diffusers, applied here, nothing to restore.
    rate_at = get_scheduler(
        "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler,
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.steps,
    ).lr_lambdas[0]
    start = done = load_state(run_dir.checkpoint, params, optimizer, ema, accelerator)
    if start:
        print(f"resuming after step {start}", file=sys.stderr, flush=True)
    main = accelerator.is_main_process
    metrics = Metrics(run_dir, start, writes=main)

    @contextlib.contextmanager
    def averaged() -> Iterator[None]:
        """For the block the parameters are what would be exported."""
        if ema:
            ema.store(params.values())
            ema.copy_to(params.values())
        yield
        if ema:
            ema.restore(params.values())

    def look(done: int, last: bool) -> None:
        """Measure, draw and save where it is time for it."""
        measuring = measure and settings.validate_every and (done % settings.validate_every == 0 or last)
        measuring = measuring and all(entry["step"] != done for entry in metrics.measured)  # before the run was stopped
        drawing = draw and main and settings.sample_every and (done % settings.sample_every == 0 or last)
        saving = save and main and settings.save_every and done and not last and done % settings.save_every == 0
        if not (measuring or drawing or saving):
            return
        with averaged():
            if measuring:
                metrics.add_measurement(done, _agreed(accelerator, measure()))
                if settings.early_stopping != "off" and main and _best_step(metrics.measured) == done:
                    save_best(run_dir.best, done, params)
            if drawing:
                with contextlib.suppress(Stopped):  # the loop sees it too, and saves the state
                    draw(done)
            if saving:
                save(Trained(done, ema is not None))

    reporter.phase("training", settings.steps)
    look(done, last=done == settings.steps)
    began, looking, finishing = time.monotonic(), 0.0, False
    while not finishing and done < settings.steps and not _is_over(metrics.measured, settings):
        learning_rate = settings.learning_rate * rate_at(done)
        for given, group in zip(groups, optimizer.param_groups, strict=True):
            group["lr"] = given.learning_rate * rate_at(done)
        loss = torch.zeros((), device=accelerator.device)
        for part in range(settings.gradient_accumulation_steps):
            with accelerator.autocast():
                part_loss = loss_of(done * settings.gradient_accumulation_steps + part) / settings.gradient_accumulation_steps
            accelerator.backward(part_loss)
            loss += part_loss.detach()
        if accelerator.num_processes > 1:
            for p in params.values():
                p.grad = accelerator.reduce(torch.zeros_like(p) if p.grad is None else p.grad, "mean")
            loss = accelerator.reduce(loss, "mean")
        if settings.max_grad_norm:
            accelerator.clip_grad_norm_(params.values(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if after_step:
            after_step()
        if ema:
            ema.step(params.values())
        metrics.add(done, loss, learning_rate)

        done += 1
        stopping, finishing = _anyone(accelerator, bool(stop)), _anyone(accelerator, stop.finishing)
        last = finishing or done == settings.steps
        if metrics.due or last:
            newest = metrics.flush()
            left = (time.monotonic() - began - looking) / (done - start) * (settings.steps - done)
            reporter.step(done, settings.steps, loss=newest, seconds_left=left, memory=memory_in_use(accelerator.device))
        looked = time.monotonic()
        look(done, done == settings.steps or (finishing and not stopping))
        looking += time.monotonic() - looked
        # After the last step too: the export may fail for want of disk space.
        if stopping or last or done % settings.checkpoint_every == 0 or _is_over(metrics.measured, settings):
            metrics.sync()
            check_finite(params)
            if main:
                save_state(run_dir.checkpoint, done, params, optimizer, ema, accelerator)
            if stopping and done < settings.steps:
                if save and main and settings.export_on_cancel:
                    with averaged():
                        save(Trained(done, ema is not None))
                raise Stopped
    trained = Trained(done, ema is not None, finished_early=finishing and done < settings.steps)
    if main:  # it alone exports
        return _leave_best(params, ema, trained, settings, run_dir)
    return trained


def _best_step(measured: list[dict]) -> int:
    """The step with the lowest held-out loss, the first of equals; -1 without one. The base itself does not count."""
    trained = [m for m in measured if m["step"] > 0 and "held_out" in m]
    return min(trained, key=lambda m: m["held_out"])["step"] if trained else -1


def _is_over(measured: list[dict], settings: Settings) -> bool:
    """Whether the held-out loss has not become lower for PATIENCE measurements."""
    if settings.early_stopping != "stop_and_export_best":
        return False
    return sum(m["step"] > _best_step(measured) for m in measured) >= PATIENCE


def _anyone(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is up in any process: all of them must leave the loop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def _agreed(accelerator: Accelerator, losses: dict[str, float]) -> dict[str, float]:
    """The same numbers in every process, where devices round differently: all must stop at the same step."""
    if accelerator.num_processes == 1:
        return losses
    means = accelerator.reduce(torch.tensor(list(losses.values()), device=accelerator.device), "mean")
    return dict(zip(losses, means.tolist(), strict=True))


def _leave_best(
    params: dict[str, nn.Parameter], ema: EMAModel | None, trained: Trained, settings: Settings, run_dir: RunDir
) -> Trained:
    """Put the weights that shall be exported into the parameters."""
    if settings.early_stopping != "off" and run_dir.best.is_file():
        return replace(trained, step=load_best(run_dir.best, params))
    if ema:
        ema.copy_to(params.values())
    return trained


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process holds, at its peak on CUDA, now elsewhere. Asks no device to finish its work."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else psutil.Process().memory_info().rss


def check_finite(params: dict[str, nn.Parameter]) -> None:
    """TrainingError when a weight is NaN or infinite: such a state is neither saved nor exported."""
    if not torch.stack([p.detach().isfinite().all() for p in params.values()]).all():
        raise TrainingError("The trained weights are no longer numbers: training diverged. Lower the learning rate.")
