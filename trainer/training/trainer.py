"""The training state of a run: optimizer, schedule, average of the weights, and how one step is taken."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from ..context import Context, TrainingError
from ..models.sd15 import DTYPES
from ..run.events import TRAINING
from ..run.messages import message
from .cpu_memory import keep_freed_memory
from .early_stopping import best_step, should_stop
from .master_weights import MasterWeights
from .metrics import Metrics, memory_in_use
from .optimizers import LossScale, ParamGroup, learning_rate_schedule, make_optimizer, update
from .state import load_best, load_state, save_best, save_state

NOT_MEASURED = message("The loss under fixed noise could not be measured at every step where it is due")
REPORT_SECONDS = 1.0
"""How often the losses are waited for and told."""
STATE_SECONDS, STATE_SHARE = 300, 0.05
"""How much work may be lost where no number of steps is set, and how much of the time may go into saving it."""
MAX_SKIPPED = 20
"""Steps in a row whose gradients may be infinite: fp16 begins with a loss scale of 2^16 and halves it at each of them."""


@dataclass(frozen=True)
class ExportInfo:
    """Which weights are exported."""

    step: int
    averaged: bool
    """Whether they are the moving average."""
    finished_early: bool = False
    """The user asked for the result before the last step."""

    def to_json(self) -> dict:
        """Return what result.json says of them."""
        early = {"finished_early": True} if self.finished_early else {}
        return {"step": self.step, "weights": "ema" if self.averaged else "last", **early}


class Trainer:
    """Takes the steps of a run, from its newest saved state on.

    `step` is the number of optimizer steps done; a step averages `gradient_accumulation_steps` batches. The model has its weights
    in the compute dtype, `weights` has them in fp32; the recipe looks at both between two steps.

    What ends a run, and what a recipe asks of it:

        stop_requested     the user or the host wants the run to stop: its state is saved, and it may go on later
        must_stop          a stop is requested before the last step: the recipe leaves without a result
        result_requested   the user wants the result of the steps done: there is no further one
        is_finished        the last step is done, the result is requested, or early stopping ends the run
        ends_here()        the same, after listening once more: the wish for the result may have been taken back
        is_due(every)      something that happens every so many steps happens now
    """

    def __init__(self, groups: Sequence[ParamGroup], loss: nn.Module, context: Context):
        """Take what is trained, fp32, and a module that holds all of it: for the index of a batch it gives (2,) its losses.

        The indices are 0, 1, ... over the whole run; the losses, that which is trained on and that of the photos alone, are a
        pure function of them and of the parameters.
        """
        self.context, self.groups = context, list(groups)
        settings = context.settings
        self.settings, self.accelerator = settings, context.accelerator
        self.weights = MasterWeights(
            [group.params for group in self.groups],
            DTYPES[settings.training.precision],
            flat=settings.optimizer.optimizer != "adafactor",  # its state is a parameter's rows and columns
            splits=settings.splits_weights,
            moves_gradients=settings.moves_gradients,
        )
        self.loss = self.accelerator.prepare(loss) if self.accelerator.num_processes > 1 else loss
        for buffer in self.weights.buffers:  # the wrapper of several processes gives the parameters other memory
            buffer.attach()
        self.loss_scale = LossScale(settings.training, context.device)
        self.optimizer = make_optimizer(self.groups, self.weights, settings.optimizer, context.device)
        self.ema = None
        if settings.optimizer.ema_decay:  # warm-up: 1 - (1 + step)^-3/4, so that short runs are not held near the base
            self.ema = EMAModel(
                self.weights.masters, decay=settings.optimizer.ema_decay, use_ema_warmup=True, power=3 / 4, foreach=True
            )
        self.rate_factor = learning_rate_schedule(settings.optimizer, settings.training.steps)
        self.step = self._start = self._saved = load_state(
            context.run_dir.state, self.weights, self.optimizer, self.ema, self.loss_scale
        )
        self.weights.copy_to_model()
        if self._start:
            print(f"resuming after step {self._start}", file=sys.stderr, flush=True)
        self.metrics = Metrics(context.run_dir, self._start, writes=context.is_main)
        self.stop_requested = False
        self._finish_at = context.run_dir.finish_at()  # asked for before the process or the export failed
        self._began = self._reported = time.monotonic()
        self._looking = 0.0
        self._next_state, self._state_due = self._began + STATE_SECONDS, False
        if context.device.type == "cpu":
            keep_freed_memory()
        context.reporter.phase(TRAINING, settings.training.steps)

    @property
    def result_requested(self) -> bool:
        """Return whether the user has asked for the result of the steps done: the next start does not train on either."""
        return self._finish_at is not None and self.step >= self._finish_at

    def train_step(self) -> None:
        """Take one step on the mean of the losses of its batches; the weights stay as they are when a gradient is not finite.

        Raises TrainingError when many steps in a row are skipped so, or when a loss is exactly 0.
        """
        factor = self.rate_factor(self.step)
        for group, options in zip(self.groups, self.optimizer.param_groups, strict=True):
            options["lr"] = group.learning_rate * factor
        losses = self._accumulate_gradients()
        skipped = update(self.optimizer, self.weights, self.settings.optimizer.max_grad_norm, self.loss_scale.factor)
        self.loss_scale.adapt(skipped)
        for group, buffers in zip(self.groups, self.weights.groups, strict=True):
            group.limit_norms(buffers)
        self.weights.copy_to_model()
        if self.ema:
            self.ema.step(self.weights.masters)
        self.step += 1
        self.metrics.add(self.step, losses, self.settings.optimizer.learning_rate * factor, skipped)
        self._hear()
        is_due = time.monotonic() - self._reported >= REPORT_SECONDS
        if is_due or self.result_requested or self.step == self.settings.training.steps:
            self._report()

    def _hear(self) -> None:
        """Note what was asked of any process: all of them must save, and leave the loop, at the same step."""
        stop, run_dir = self.context.stop, self.context.run_dir
        by_clock = self.context.is_main and time.monotonic() > self._next_state
        self.stop_requested, finish, go_on, self._state_due = self._in_any_process(
            bool(stop), stop.finishing is True, stop.finishing is False, by_clock
        )
        if finish and not self.result_requested:
            self._finish_at = self.step
            if self.context.is_main:
                run_dir.finish.write_text(str(self.step))
        elif go_on and self.result_requested:
            self._finish_at = None
            if self.context.is_main:
                run_dir.finish.unlink(missing_ok=True)

    def ends_here(self) -> bool:
        """Return whether no further step is taken; the user may have thought better of it while pictures were drawn."""
        if self.result_requested:
            self._hear()
        return self.is_finished

    def _accumulate_gradients(self) -> Tensor:
        """Backpropagate the batches of the step; return (2,) the means of their losses over all processes."""
        batches = self.settings.training.gradient_accumulation_steps
        total = torch.zeros(2, device=self.context.device)
        for index in range(batches):
            losses = self.loss(self.step * batches + index) / batches
            (losses[0] * self.loss_scale.factor).backward()  # processes exchange their gradients meanwhile
            self.weights.gather_gradients()
            total += losses.detach()
        return self._reduce(total, "mean") if self.accelerator.num_processes > 1 else total

    def _report(self) -> None:
        steps, loss = self.settings.training.steps, self._checked_loss()
        self._reported = time.monotonic()
        per_step = (time.monotonic() - self._began - self._looking) / (self.step - self._start)
        self.context.reporter.progress(
            self.step,
            steps,
            loss=loss,
            seconds_left=per_step * (steps - self.step),
            memory=memory_in_use(self.context.device),
        )

    def _checked_loss(self) -> float:
        """Return the newest loss. Raises TrainingError, with the weights saved, when the last steps were all skipped.

        The first process raises it for all: the others must not end it while it saves.
        """
        loss, in_a_row = self.metrics.flush(), self.metrics.skipped_in_a_row
        if in_a_row < min(MAX_SKIPPED, self.settings.training.steps) or not self.context.is_main:
            return loss
        if self.step != self._saved:
            self._save()
        precision = self.settings.training.precision
        if in_a_row < self.step:
            raise TrainingError(
                "The gradients of the last {count} steps, up to step {step}, are NaN or infinite: training diverged. Lower the "
                "learning rate, or set precision to fp32. The weights from before are saved.",
                count=in_a_row,
                step=self.step,
            )
        if precision == "fp32":  # nothing was learned that could have diverged
            raise TrainingError(
                "Of the first {count} steps none gave usable gradients (NaN or infinite). The base checkpoint is broken: try "
                "another one.",
                count=in_a_row,
            )
        raise TrainingError(
            "Of the first {count} steps none gave usable gradients (NaN or infinite). The base checkpoint is broken, or "
            "precision {precision} is too coarse for it: set precision to fp32, or try another base.",
            count=in_a_row,
            precision=precision,
        )

    @contextlib.contextmanager
    def weights_to_export(self) -> Iterator[None]:
        """Make the weights, for the block, those that would be exported: their average, if there is one."""
        began = time.monotonic()
        if self.ema:
            self.ema.store(self.weights.masters)
            self.ema.copy_to(self.weights.masters)
            self.weights.copy_to_model()
        try:
            yield
        finally:
            if self.ema:
                self.ema.restore(self.weights.masters)
                self.weights.copy_to_model()
        self._looking += time.monotonic() - began

    def is_due(self, every: int, *, first: bool = True, last: bool = True) -> bool:
        """Return whether something that happens every `every` steps (0: never) happens now.

        `first`, `last`: whether it also happens before the first step, and after the last one whatever its number.
        """
        at_end = self.step == self.settings.training.steps or (self.result_requested and not self.stop_requested)
        if not every or (self.step == 0 and not first) or (at_end and not last):
            return False
        return at_end or self.step % every == 0

    def add_measurement(self, losses: dict[str, float] | None) -> None:
        """Note the losses of a measurement, and keep the weights when they are the best of a run that exports these.

        None: this process could not measure. When one could not, there is no measurement.
        """
        (failed,) = self._in_any_process(losses is None)
        if failed and losses is not None:
            self.context.warn_once(NOT_MEASURED, message("another process failed at it"))
        if failed or losses is None:
            return
        self.metrics.add_measurement(self.step, self._agreed(losses))
        best = best_step(self.metrics.measured) == self.step
        if best and self.settings.validation.early_stopping != "off" and self.context.is_main:
            save_best(self.context.run_dir.best, self.step, self.weights)

    @property
    def is_finished(self) -> bool:
        """Return whether the last step is done, the result was asked for, or early stopping ends the run."""
        over = should_stop(self.metrics.measured, self.settings.validation.early_stopping)
        return self.result_requested or self.step == self.settings.training.steps or over

    def save_state_if_due(self) -> None:
        """Save the complete state where it is due and not saved yet: on a stop, at the interval, and at some ends.

        At the end of a run only for one that may go on, or whose last weights are not what is exported. Raises TrainingError for
        NaN weights.
        """
        if self.stop_requested or not self.is_finished:
            due = self.stop_requested or self._interval_is_over()
        else:
            settings, early = self.settings, self.step < self.settings.training.steps
            due = settings.training.keep_state or early or self.ema is not None or settings.validation.early_stopping != "off"
        if due and self.step != self._saved:
            self._checked_loss()
            self._save()

    def _interval_is_over(self) -> bool:
        every = self.settings.training.checkpoint_every
        if every:
            return self.step % every == 0
        return self._state_due

    def _save(self) -> None:
        began = time.monotonic()
        self.metrics.sync()
        check_finite(self.weights)
        if self.context.is_main:
            save_state(self.context.run_dir.state, self.step, self.weights, self.optimizer, self.ema, self.loss_scale)
        self._saved, now = self.step, time.monotonic()
        self._next_state = now + max(STATE_SECONDS, (now - began) / STATE_SHARE)

    @contextlib.contextmanager
    def saved_on_failure(self) -> Iterator[None]:
        """Save the state when the block fails, if it is not saved: the export may have found the disk full."""
        try:
            yield
        except BaseException:
            if self.step != self._saved:
                with contextlib.suppress(Exception):  # the first failure is told
                    self._save()
            raise

    @property
    def must_stop(self) -> bool:
        """Return whether the run was asked to stop before its last step."""
        return self.stop_requested and self.step < self.settings.training.steps

    def export_info(self) -> ExportInfo:
        """Return which weights those of `weights_to_export` are."""
        early = self.result_requested and self.step < self.settings.training.steps
        return ExportInfo(self.step, averaged=self.ema is not None, finished_early=early)

    def use_final_weights(self) -> ExportInfo:
        """Make the weights that are exported the weights for good: the best ones, the average, or the last ones."""
        self._checked_loss()
        self.metrics.sync()
        check_finite(self.weights)
        self._warn_of_skipped_steps()
        info, best = self.export_info(), self.context.run_dir.best
        if not self.context.is_main:  # it does not export
            return info
        if self.settings.validation.early_stopping != "off" and best.is_file():
            return ExportInfo(load_best(best, self.weights), info.averaged, info.finished_early)
        if self.ema:
            self.ema.copy_to(self.weights.masters)
        return info

    def _warn_of_skipped_steps(self) -> None:
        expected = 16 + self.step // 1000 if self.loss_scale.adapts else 0  # fp16 finds its loss scale by overflowing
        if self.metrics.skipped > expected:
            self.context.reporter.warning(
                "{count} of {steps} steps were skipped: their gradients were NaN or infinite. A lower learning rate or precision "
                "fp32 may help.",
                count=self.metrics.skipped,
                steps=self.step,
            )

    def _in_any_process(self, *flags: bool) -> list[bool]:
        """Return of each flag whether it is up in any process."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        return (self._reduce(torch.tensor(flags, dtype=torch.float32, device=self.context.device), "sum") > 0).tolist()

    def _agreed(self, losses: dict[str, float]) -> dict[str, float]:
        """Return the same numbers in every process, where devices round differently: all must stop at the same step."""
        if self.accelerator.num_processes == 1:
            return losses
        means = self._reduce(torch.tensor(list(losses.values()), device=self.context.device), "mean")
        return dict(zip(losses, means.tolist(), strict=True))

    def _reduce(self, tensor: Tensor, how: str) -> Tensor:
        """Return the "sum" or "mean" of the tensor over all processes."""
        reduced = self.accelerator.reduce(tensor, how)
        assert isinstance(reduced, Tensor)
        return reduced


def check_finite(weights: MasterWeights) -> None:
    """Raise TrainingError when a weight is NaN or infinite: such a state is neither saved nor exported."""
    if not weights.are_finite():
        raise TrainingError("The trained weights are no longer numbers: training diverged. Lower the learning rate.")
