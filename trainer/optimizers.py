"""The optimizers a run can choose, all from libraries."""

from dataclasses import dataclass

import torch
from torch import nn

from .config import Settings


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with one learning rate and decay."""

    params: dict[str, nn.Parameter]
    """fp32, on the device, by names that no other group has."""
    learning_rate: float
    weight_decay: float


def make_optimizer(groups: list[ParamGroup], settings: Settings, device: torch.device) -> tuple[torch.optim.Optimizer, str]:
    """The optimizer of the settings, and a sentence where it had to be another; its order of parameters is the groups'."""
    options = [
        {"params": list(group.params.values()), "lr": group.learning_rate, "weight_decay": group.weight_decay} for group in groups
    ]
    warning = ""
    if settings.optimizer == "adamw_8bit":
        reason = _why_no_8bit(device)
        if not reason:
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(options), ""
        warning = f"8-bit AdamW cannot run here ({reason}): AdamW is used instead. It needs 6 more bytes for each trained weight."
    if settings.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Shazeer and Stern 2018, with the given learning rate instead of their relative step.
        return Adafactor(options, scale_parameter=False, relative_step=False, warmup_init=False), ""
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        # Mishchenko and Defazio 2023; bias correction and safeguard as its authors advise for diffusion models.
        return Prodigy(options, use_bias_correction=True, safeguard_warmup=True), ""
    return torch.optim.AdamW(options, fused=device.type in ("cpu", "cuda")), warning


def _why_no_8bit(device: torch.device) -> str:
    """ "" when bitsandbytes can take a step on the device, else the reason."""
    try:
        from bitsandbytes.optim import AdamW8bit

        probe = nn.Parameter(torch.zeros(4096, device=device))
        probe.grad = torch.ones_like(probe)
        AdamW8bit([probe]).step()
    except Exception as error:  # whatever a library for other hardware raises
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
