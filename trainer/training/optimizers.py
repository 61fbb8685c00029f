"""The optimizers and learning-rate schedules that a run can choose, all from libraries."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from ..run.eight_bit import REPAIR, why_no_8bit
from ..run.messages import UserError
from ..run.settings import OptimizerSettings

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
    def limit_norms(self) -> None:
        """Shorten the rows that have become too long."""
        if self.max_row_norm is not None:
            for p in self.params.values():
                p.mul_((self.max_row_norm / p.norm(dim=1, keepdim=True)).clamp(max=1))


def make_optimizer(groups: Sequence[ParamGroup], settings: OptimizerSettings, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer of the settings, its parameters in the groups' order.

    Raises UserError when 8-bit AdamW cannot run on the device: another would need memory that nobody has checked.
    """
    options: list[dict[str, Any]] = [
        {"params": list(group.params.values()), "lr": group.learning_rate, "weight_decay": group.weight_decay} for group in groups
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
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(options)
    if settings.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Shazeer and Stern 2018, with the given learning rate instead of their relative step.
        return Adafactor(options, scale_parameter=False, relative_step=False, warmup_init=False)
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        # Mishchenko and Defazio 2023; bias correction and safeguard as its authors advise for diffusion models.
        return Prodigy(options, use_bias_correction=True, safeguard_warmup=True)
    return torch.optim.AdamW(options, fused=device.type in ("cpu", "cuda"))


@torch.no_grad()
def update(optimizer: AcceleratedOptimizer, params: Iterable[nn.Parameter], max_norm: float, accelerator: Accelerator) -> Tensor:
    """Take a step with the gradients clipped to the norm `max_norm` (0: as they are), or none when one is not finite.

    Returns whether there was none, () bool on the device. torch's fused AdamW scales, clips and skips in its own kernel, without
    waiting for the device; so does the loss scaler of fp16. The others are asked, which waits once a step.
    """
    params = [p for p in params if p.grad is not None]
    accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    skipped = ~norm.isfinite()
    if accelerator.scaler is None and optimizer.defaults.get("fused"):
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0) if max_norm else torch.ones_like(norm)
        optimizer.optimizer.grad_scale, optimizer.optimizer.found_inf = 1 / factor, skipped.float()
        optimizer.step()
        return skipped
    if max_norm:
        torch.nn.utils.clip_grads_with_norm_(params, max_norm, norm)
    if accelerator.scaler or not skipped:
        optimizer.step()
    return skipped


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
