"""The optimizers and learning-rate schedules that a run can choose, all from libraries, and how one step is taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..run.eight_bit import REPAIR, why_no_8bit
from ..run.messages import UserError
from ..run.settings import OptimizerSettings, TrainingSettings
from .master_weights import Buffer, MasterWeights, move

RESTART_CYCLES, POLYNOMIAL_POWER = 3, 2.0
"""Of cosine_with_restarts and polynomial; with 1 they would be cosine and linear (Loshchilov and Hutter 2017 restart)."""


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with one learning rate and decay."""

    params: dict[str, nn.Parameter]
    """fp32, on the device, by names that no other group has."""
    learning_rate: float
    weight_decay: float
    max_row_norm: Tensor | None = None
    """Longest that a row of the parameters may be after a step, a scalar; None: no limit."""

    @torch.no_grad()
    def limit_norms(self, buffers: Sequence[Buffer]) -> None:
        """Shorten the rows that have become too long; `buffers` are the group's, of a parameter each."""
        if self.max_row_norm is None:
            return
        for buffer in buffers:
            with buffer.whole() as master:
                master.mul_((self.max_row_norm / master.norm(dim=1, keepdim=True)).clamp(max=1))


def make_optimizer(
    groups: Sequence[ParamGroup], weights: MasterWeights, settings: OptimizerSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer of the settings over the groups' master weights.

    Raises UserError when 8-bit AdamW cannot run on the device: another would need memory that nobody has checked.
    """
    options: list[dict[str, Any]] = [
        {"params": [buffer.master for buffer in buffers], "lr": group.learning_rate, "weight_decay": group.weight_decay}
        for group, buffers in zip(groups, weights.groups, strict=True)
    ]
    if settings.optimizer == "adamw_8bit":
        reason = why_no_8bit(str(device))
        if reason:
            raise UserError(
                "8-bit AdamW cannot run here ({reason}). Repair it in ComfyUI's Python ({repair}), or choose optimizer adamw, "
                "which needs 6 more bytes for each trained weight.",
                reason=reason,
                repair=REPAIR,
            )
        return _adamw_8bit(options, weights)
    if settings.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Shazeer and Stern 2018, with the given learning rate instead of their relative step.
        return Adafactor(options, scale_parameter=False, relative_step=False, warmup_init=False)
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        # Mishchenko and Defazio 2023; bias correction and safeguard as its authors advise for diffusion models.
        return Prodigy(options, use_bias_correction=True, safeguard_warmup=True)
    return torch.optim.AdamW(options, fused=device.type in ("cpu", "cuda"))


def _adamw_8bit(options: list[dict[str, Any]], weights: MasterWeights) -> torch.optim.Optimizer:
    """Return bitsandbytes' AdamW; a buffer of small parameters keeps 32-bit moments, as each of them would by itself."""
    from bitsandbytes import optim

    class AdamW8bit(optim.AdamW8bit):
        def get_config(self, gindex: int, pindex: int, group: dict) -> dict:
            bits = 32 if weights.groups[gindex][pindex].is_small else 8
            return super().get_config(gindex, pindex, group) | {"optim_bits": bits}

    return AdamW8bit(options)


class LossScale:
    """The factor of fp16's losses, so that small gradients do not become 0 (Micikevicius et al. 2018, section 3.2).

    torch's GradScaler, with its numbers, wants the fp32 gradients of all weights at once.
    """

    FIRST, GOOD_STEPS = 2.0**16, 2000

    def __init__(self, settings: TrainingSettings, device: torch.device):
        self.adapts = settings.precision == "fp16"
        self.factor = torch.tensor(self.FIRST if self.adapts else 1.0, device=device)
        self.good_steps = torch.tensor(0, device=device)
        """Steps without overflow since the factor last changed."""

    def adapt(self, skipped: Tensor) -> None:
        """Halve the factor after a step that overflowed, () bool; double it after GOOD_STEPS others. Waits for no device."""
        if self.adapts:
            good = torch.where(skipped, 0, self.good_steps + 1)
            change = torch.where(skipped, 0.5, torch.where(good == self.GOOD_STEPS, 2.0, 1.0))
            self.factor, self.good_steps = self.factor * change, good % self.GOOD_STEPS


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer, weights: MasterWeights, max_norm: float, loss_scale: Tensor) -> Tensor:
    """Take a step with the gradients clipped to the norm `max_norm` (0: as they are), or none when one is not finite.

    The gradients are those of the loss times `loss_scale`. Returns whether there was no step, () bool on the device. torch's
    fused AdamW scales, clips and skips in its own kernel, without waiting for the device; the others are asked, which waits once
    a step.
    """
    norms, gradients = weights.gradient_norms(), weights.take_gradients()
    norm = (torch.stack(norms).norm() if norms else torch.zeros_like(loss_scale)) / loss_scale
    skipped, fused = ~norm.isfinite(), bool(optimizer.defaults.get("fused"))
    if not fused and skipped:
        return skipped
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0) if max_norm else torch.ones_like(norm)
    factor = factor / loss_scale
    if fused:
        optimizer.grad_scale, optimizer.found_inf = 1 / factor, skipped.float()  # pyright: ignore[reportAttributeAccessIssue]
    for number, buffer in enumerate(weights.buffers):
        gradient, gradients[number] = gradients[number], None
        if gradient is None:
            continue
        with buffer.whole() as master:
            gradient = move(gradient, master.device).float()  # one at a time: all of them would take the memory
            master.grad = gradient if fused else gradient.mul_(factor)
            if not needs_all_gradients(optimizer):
                optimizer.step()  # of this buffer: a parameter without gradient is left alone
                master.grad = None
    if needs_all_gradients(optimizer):
        optimizer.step()
        optimizer.zero_grad()
    return skipped


def needs_all_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a step of it looks at all gradients together, as Prodigy's estimate of the rate does."""
    return type(optimizer).__name__ == "Prodigy"


def learning_rate_schedule(settings: OptimizerSettings, steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at a step (0, 1, ...), by diffusers' schedule of the settings' name.

    It is a function of the step alone, so resuming has nothing to restore.
    """
    from diffusers.optimization import get_scheduler

    name = "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler
    unused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule: Any = get_scheduler(
        name,
        unused,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=RESTART_CYCLES,
        power=POLYNOMIAL_POWER,
    )
    return schedule.lr_lambdas[0]
