"""The fp32 weights of what is trained, in a few flat buffers, beside the model that works with them in its compute dtype.

Most steps of a fine-tuning are too small to change a weight in half precision (Micikevicius et al. 2018, section 3.1): the
optimizer changes fp32 masters, of which the model has copies. What is done to all weights is done to a buffer at a time.

Where memory is short, a master of a bf16 model is only there while its buffer is worked on: else the model has its first 16 bits,
and the others lie beside them. Its gradient is then moved to the computer's memory during the backward pass, as soon as it is
complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..parts.memory import BUFFER_WEIGHTS
from .tensor_file import LateTensor

SMALL = 4096
"""Weights below which bitsandbytes keeps 32-bit moments of a parameter: such ones have buffers of their own."""
BLOCK = 256
"""Numbers that bitsandbytes quantizes together: none of them are of two parameters."""


@dataclass(frozen=True)
class Buffer:
    """Parameters of one group, one after the other."""

    params: dict[str, nn.Parameter]
    """The model's, by name, now views of `work`."""
    master: nn.Parameter
    """(N,) fp32, what the optimizer changes; of the parameter's own shape where there is but one. Empty while it is split."""
    work: Tensor
    """The same weights in the compute dtype; in fp32 the master itself."""
    rest: Tensor | None = None
    """int16, in the shape of `work`: the master's last 16 bits, where it is split into `work` and them; see `join`."""

    @property
    def is_small(self) -> bool:
        """Return whether it is one of small parameters."""
        return next(iter(self.params.values())).numel() < SMALL

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Return views of a tensor that is laid out as the master, by the parameters' names and in their shapes."""
        pieces = tensor.detach().flatten().split([p.numel() for p in self.params.values()])
        return {name: piece.view_as(p) for (name, p), piece in zip(self.params.items(), pieces, strict=True)}

    def attach(self) -> None:
        """Make the model's parameters views of `work`."""
        for name, view in self.split(self.work).items():
            self.params[name].data = view

    @contextmanager
    def whole(self) -> Iterator[nn.Parameter]:
        """Have the master in one piece for the block, which may change it."""
        if self.rest is None:
            yield self.master
            return
        self.master.data = join(self.work, self.rest)
        try:
            yield self.master
        finally:
            split_into(self.work, self.rest, self.master.data)
            self.master.data = self.master.data.new_empty(0)


def join(work: Tensor, rest: Tensor) -> Tensor:
    """Return the fp32 numbers of which `work` (bf16) are the nearest and `rest` (int16) what they lack, seen as whole numbers.

    As such an fp32 number is 2^16 x the bf16 number of its first 16 bits + its last 16 bits. `work` is rounded to the nearest,
    half away from zero; so `rest` is negative where it was rounded up, and fits its 16 bits always.
    """
    return torch.add(rest, work.view(torch.int16).int(), alpha=2**16).view(torch.float32)


def split_into(work: Tensor, rest: Tensor, master: Tensor) -> None:
    """Write fp32 numbers as `join` reads them; `master` (fp32) is used up for it."""
    bits = master.view(torch.int32)
    rest.copy_(bits)  # the last 16 of them
    work.view(torch.int16).copy_(bits.add_(2**15).bitwise_right_shift_(16))


class MasterWeights(Mapping[str, Tensor]):
    """The buffers of all trained parameters, and the gradients of a step.

    As a mapping, the fp32 masters by the parameters' names and in their shapes.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, nn.Parameter]],
        dtype: torch.dtype,
        *,
        flat: bool = True,
        splits: bool = False,
        moves_gradients: bool = False,
    ):
        """Move the parameters (fp32) into buffers; the model has them as `dtype` from now on.

        Not `flat`: each has a buffer of its own, for an optimizer that asks for their shapes. `splits`: the masters of a bf16
        model are split. `moves_gradients`: the gradients of a step lie in the computer's memory.
        """
        limit = BUFFER_WEIGHTS if flat else 0
        self.groups = [[_pack(params, dtype, splits) for params in _shares(group, limit)] for group in groups]
        """The buffers of each group."""
        self.buffers = [buffer for buffers in self.groups for buffer in buffers]
        self.masters = [buffer.master for buffer in self.buffers]
        self._places = {name: buffer for buffer in self.buffers for name in buffer.params}
        self._gradients: list[Tensor | None] = [None] * len(self.buffers)
        self._norms: list[Tensor | None] = [None] * len(self.buffers)
        self._moves_gradients = moves_gradients
        for number, buffer in enumerate(self.buffers if moves_gradients else ()):
            for p in buffer.params.values():
                p.register_post_accumulate_grad_hook(lambda _, number=number: self._gather_if_complete(number))

    def __getitem__(self, name: str) -> Tensor:
        """Return the master of a parameter: a view of it, or where it is split, a copy."""
        buffer = self._places[name]
        if buffer.rest is None:
            return buffer.split(buffer.master)[name]
        return join(buffer.split(buffer.work)[name], buffer.split(buffer.rest)[name])

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        """Set the master of a parameter; the model has it after `copy_to_model`."""
        buffer = self._places[name]
        if buffer.rest is None:
            buffer.split(buffer.master)[name].copy_(tensor)
        else:
            given = tensor.to(buffer.work.device, torch.float32, copy=True)
            split_into(buffer.split(buffer.work)[name], buffer.split(buffer.rest)[name], given)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def late(self, name: str) -> LateTensor:
        """Return the master of a parameter for a file, read only when it is written."""
        return LateTensor(self._places[name].params[name].shape, torch.float32, lambda: self[name])

    @torch.no_grad()
    def gather_gradients(self) -> None:
        """Take the gradients off the model and add them to those of the step: in the compute dtype, and in fp32 from two on."""
        for number in range(len(self.buffers)):
            self._gather(number)

    def _gather_if_complete(self, number: int) -> None:
        if all(p.grad is not None for p in self.buffers[number].params.values()):
            with torch.no_grad():
                self._gather(number)

    def _gather(self, number: int) -> None:
        buffer = self.buffers[number]
        params = list(buffer.params.values())
        if all(p.grad is None for p in params):  # as of the token, where no caption has it
            return
        given = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in params])
        for p in params:
            p.grad = None
        given, held = given.view_as(buffer.work), self._gradients[number]
        total = given if held is None else move(held, given.device).float().add_(given)
        if self._moves_gradients:
            self._norms[number] = norm_of(total)
            total = move(total, torch.device("cpu"))
        self._gradients[number] = total

    def gradient_norms(self) -> list[Tensor]:
        """Return () fp32 the norm of the gradient of each buffer that has one."""
        if self._moves_gradients:
            return [norm for norm in self._norms if norm is not None]
        return [norm_of(gradient) for gradient in self._gradients if gradient is not None]

    def take_gradients(self) -> list[Tensor | None]:
        """Return the gradient of each buffer, in the shape of its master, and forget them; None: it had no part in the loss.

        They lie where they were kept, on the device or in the computer's memory.
        """
        taken = list(self._gradients)
        self._gradients[:] = self._norms[:] = [None] * len(taken)
        return taken

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the weights that the masters have now."""
        for buffer in self.buffers:
            if buffer.rest is None and buffer.work.dtype != torch.float32:
                buffer.work.copy_(buffer.master)

    def are_finite(self) -> bool:
        """Return whether no master is NaN or infinite."""
        pieces = (b.master if b.rest is None else join(b.work, b.rest) for b in self.buffers)
        return bool(torch.stack([piece.detach().isfinite().all() for piece in pieces]).all())


def norm_of(gradient: Tensor) -> Tensor:
    """Return () fp32 the norm of a gradient in any type."""
    return gradient.float().norm()


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device; to and from CUDA without waiting, in the order of what is computed there."""
    return tensor.to(device, non_blocking="cuda" in (tensor.device.type, device.type))  # then the computer's memory is pinned


def _shares(params: Mapping[str, nn.Parameter], limit: int) -> Iterator[dict[str, nn.Parameter]]:
    """Yield the parameters of a group as one buffer each shall hold them, of `limit` weights at most or of one parameter."""
    for is_small in (False, True):
        share: dict[str, nn.Parameter] = {}
        held = 0
        for name, p in params.items():
            if (p.numel() < SMALL) != is_small:
                continue
            if share and (held + p.numel() > limit or (not is_small and held % BLOCK)):
                yield share
                share, held = {}, 0
            share[name] = p
            held += p.numel()
        if share:
            yield share


def _pack(params: dict[str, nn.Parameter], dtype: torch.dtype, splits: bool) -> Buffer:
    """Return a buffer of the parameters, which become views of it."""
    master = torch.cat([p.detach().float().flatten() for p in params.values()])
    if len(params) == 1:
        master = master.view_as(*params.values())
    if splits:
        work, rest = torch.empty_like(master, dtype=dtype), torch.empty_like(master, dtype=torch.int16)
        split_into(work, rest, master)
        buffer = Buffer(params, nn.Parameter(master.new_empty(0)), work, rest)
    else:
        buffer = Buffer(params, nn.Parameter(master), master.to(dtype))
    buffer.attach()
    return buffer
