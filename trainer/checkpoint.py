"""The newest complete state of a run: trained weights, optimizer, step. Replaced atomically, never edited in place."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from .rundir import partial_file


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    with partial_file(path) as partial:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial, metadata)


def save_state(
    path: Path,
    step: int,
    params: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> None:
    """`step` steps are done; `params` are what is trained, in the optimizer's order."""
    tensors = {f"param/{name}": p for name, p in params.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
    save_tensors(path, tensors, {"step": str(step), "scaler": json.dumps(scaler)})


def load_state(path: Path, params: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> int:
    """The number of steps done; 0 and nothing touched when there is no saved state."""
    if not path.is_file():
        return 0
    state: dict[int, dict[str, torch.Tensor]] = {}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        for key in file.keys():  # noqa: SIM118 - not a dict
            kind, name = key.split("/", 1)
            if kind == "param":
                with torch.no_grad():
                    params[name].copy_(file.get_tensor(key))
            else:
                index, name = name.split("/", 1)
                # A copy: the tensor itself is a view of the file, which the next state shall replace.
                state.setdefault(int(index), {})[name] = file.get_tensor(key).clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if accelerator.scaler:
        accelerator.scaler.load_state_dict(json.loads(metadata["scaler"]))
    return int(metadata["step"])
