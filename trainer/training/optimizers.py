"""The optimizers and learning-rate schedules that a run can choose, all from libraries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..run.events import Reporter
from ..run.settings import OptimizerSettings


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


def make_optimizer(
    groups: Sequence[ParamGroup], settings: OptimizerSettings, device: torch.device, reporter: Reporter
) -> torch.optim.Optimizer:
    """Return the optimizer of the settings, its parameters in the groups' order; a warning says where it had to be another."""
    options: list[dict[str, Any]] = [
        {"params": list(group.params.values()), "lr": group.learning_rate, "weight_decay": group.weight_decay} for group in groups
    ]
    if settings.optimizer == "adamw_8bit":
        reason = why_no_8bit(device)
        if not reason:
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(options)
        reporter.warning(
            "8-bit AdamW cannot run here ({reason}): AdamW is used instead. It needs 6 more bytes for each trained weight.",
            reason=reason,
        )
    if settings.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Shazeer and Stern 2018, with the given learning rate instead of their relative step.
        return Adafactor(options, scale_parameter=False, relative_step=False, warmup_init=False)
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        # Mishchenko and Defazio 2023; bias correction and safeguard as its authors advise for diffusion models.
        return Prodigy(options, use_bias_correction=True, safeguard_warmup=True)
    return torch.optim.AdamW(options, fused=device.type in ("cpu", "cuda"))


def why_no_8bit(device: torch.device) -> str:
    """Return why bitsandbytes cannot take a step on the device; "" when it can."""
    try:
        from bitsandbytes.optim import AdamW8bit

        probe = nn.Parameter(torch.zeros(4096, device=device))
        probe.grad = torch.ones_like(probe)
        AdamW8bit([probe]).step()
    except Exception as error:  # whatever a library for other hardware raises
        return f"{type(error).__name__}: {error}".splitlines()[0][:500]
    return ""


def learning_rate_schedule(settings: OptimizerSettings, steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at a step (0, 1, ...), by diffusers' schedule of the settings' name.

    It is a function of the step alone, so resuming has nothing to restore.
    """
    from diffusers.optimization import get_scheduler

    name = "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler
    unused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule: Any = get_scheduler(name, unused, num_warmup_steps=settings.lr_warmup_steps, num_training_steps=steps)
    return schedule.lr_lambdas[0]
