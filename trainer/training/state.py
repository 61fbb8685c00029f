"""The newest complete state of a run: trained weights, their average, optimizer, step. Replaced atomically, never edited."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..run.memory_errors import out_of_memory
from ..run.messages import UserError
from .master_weights import MasterWeights
from .optimizers import LossScale
from .tensor_file import LateTensor, write_tensors

CPU = torch.device("cpu")


def kind_of(optimizer: torch.optim.Optimizer) -> str:
    """Return the name of the optimizer's class: what its states can be read by."""
    return type(optimizer).__name__


def _numbers(values: Mapping) -> dict:
    return {k: v for k, v in values.items() if isinstance(v, int | float)}


def _tensors(values: Mapping, prefix: str) -> dict[str, Tensor]:
    """Return all tensors, those of dicts within too: bitsandbytes puts its quantized moments into one."""
    tensors = {f"{prefix}/{k}": v for k, v in values.items() if torch.is_tensor(v)}
    for key, value in values.items():
        if isinstance(value, Mapping):
            tensors |= _tensors(value, f"{prefix}/{key}")
    return tensors


def save_state(
    path: Path,
    step: int,
    weights: MasterWeights,
    optimizer: torch.optim.Optimizer,
    ema: EMAModel | None,
    loss_scale: LossScale,
) -> None:
    """Write the complete state after `step` steps."""
    tensors: dict[str, Tensor | LateTensor] = {f"param/{name}": weights.late(name) for name in weights}
    held = optimizer.state_dict()
    for index, state in held["state"].items():
        tensors |= _tensors(state, f"optimizer/{index}")
    if ema:
        tensors |= {f"ema/{index}": p for index, p in enumerate(ema.shadow_params)}
    metadata = {
        "step": step,
        "optimizer_kind": kind_of(optimizer),
        "loss_scale": [float(loss_scale.factor), int(loss_scale.good_steps)],
        "optimizer": {index: _numbers(state) for index, state in held["state"].items()},
        "groups": [_numbers(group) for group in held["param_groups"]],  # Prodigy keeps its estimates there
    }
    write_tensors(path, tensors, {key: json.dumps(value) for key, value in metadata.items()})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise UserError, with what to do, when the block finds that the file is not what `save_state` wrote."""
    try:
        yield
    except UserError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        if out_of_memory(error):  # the file is as good as it was
            raise
        raise UserError(
            "The saved state {path} cannot be read ({error}). Delete this file and queue the graph again: the run then begins "
            "anew.",
            path=str(path),
            error=f"{type(error).__name__}: {error}",
        ) from error


def load_state(
    path: Path,
    weights: MasterWeights,
    optimizer: torch.optim.Optimizer,
    ema: EMAModel | None,
    loss_scale: LossScale,
) -> int:
    """Return the number of steps done; 0, and nothing touched, without a saved state. Raises UserError when it cannot be read."""
    if not path.is_file():
        return 0
    with _readable(path), safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        if metadata["optimizer_kind"] != kind_of(optimizer):  # nothing would fit, or worse, something would
            raise UserError(
                "The saved state {path} is of the optimizer {theirs}, this run's is {ours}. Delete this file and queue the graph "
                "again: the run then begins anew.",
                path=str(path),
                theirs=metadata["optimizer_kind"],
                ours=kind_of(optimizer),
            )
        state = {int(index): numbers for index, numbers in metadata["optimizer"].items()}
        devices = [p.device for group in optimizer.param_groups for p in group["params"]]
        shadows = {str(index): p for index, p in enumerate(ema.shadow_params)} if ema else {}
        for key in file.keys():  # noqa: SIM118 - not a dict
            kind, name = key.split("/", 1)
            if kind == "optimizer":
                index, *folders, name = name.split("/")
                values = state.setdefault(int(index), {})
                for folder in folders:
                    values = values.setdefault(folder, {})
                values[name] = _own_copy(file.get_tensor(key), devices[int(index)] if name != "step" else CPU)
            elif kind == "param":
                weights[name] = file.get_tensor(key)
            else:
                shadows[name].copy_(file.get_tensor(key))
        groups = [held | kept for held, kept in zip(optimizer.state_dict()["param_groups"], metadata["groups"], strict=True)]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        if ema:
            ema.optimization_step = metadata["step"]
        factor, good_steps = metadata["loss_scale"]
        loss_scale.factor.fill_(factor)
        loss_scale.good_steps.fill_(good_steps)
        return metadata["step"]


def _own_copy(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a copy on the device: the tensor itself is a view of the file, which the next state shall replace."""
    return tensor.clone() if device.type == "cpu" else tensor.to(device)  # at once: all of them would fill the CPU's memory


def save_best(path: Path, step: int, weights: MasterWeights) -> None:
    """Write the weights of the best step so far."""
    write_tensors(path, {name: weights.late(name) for name in weights}, {"step": str(step)})


def load_best(path: Path, weights: MasterWeights) -> int:
    """Fill the masters with the best step's weights and return which step that was."""
    with safe_open(path, "pt") as file:
        for name in weights:
            weights[name] = file.get_tensor(name)
        return int(file.metadata()["step"])
