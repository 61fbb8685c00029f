"""The fp32 weights of what is trained, in a few flat buffers, beside the model that works with them in its compute dtype.

Most steps of a fine-tuning are too small to change a weight in half precision (Micikevicius et al. 2018, section 3.1): the
optimizer changes fp32 masters, of which the model has copies. What is done to all weights is done to a buffer at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BUFFER_WEIGHTS = 2**25
"""Weights of a buffer at most, where no single parameter has more: a step has the fp32 gradients of one buffer at a time."""
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
    """(N,) fp32, what the optimizer changes; of the parameter's own shape where there is but one."""
    work: Tensor
    """The same weights in the compute dtype; in fp32 the master itself."""

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


class MasterWeights:
    """The buffers of all trained parameters, and the gradients of a step."""

    def __init__(self, groups: Sequence[Mapping[str, nn.Parameter]], dtype: torch.dtype, flat: bool = True):
        """Move the parameters (fp32) into buffers; the model has them as `dtype` from now on.

        Not `flat`: each has a buffer of its own, for an optimizer that asks for their shapes.
        """
        limit = BUFFER_WEIGHTS if flat else 0
        self.groups = [[_pack(params, dtype) for params in _shares(group, limit)] for group in groups]
        """The buffers of each group."""
        self.buffers = [buffer for buffers in self.groups for buffer in buffers]
        self.masters = [buffer.master for buffer in self.buffers]
        self._gradients: list[Tensor | None] = [None] * len(self.buffers)

    def named(self) -> dict[str, Tensor]:
        """Return views of the masters, by the parameters' names and in their shapes."""
        return {name: view for buffer in self.buffers for name, view in buffer.split(buffer.master).items()}

    @torch.no_grad()
    def gather_gradients(self) -> None:
        """Take the gradients off the model and add them to those of the step: in the compute dtype, and in fp32 from two on."""
        for number, buffer in enumerate(self.buffers):
            params = list(buffer.params.values())
            if all(p.grad is None for p in params):  # as of the token, where no caption has it
                continue
            given = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in params])
            for p in params:
                p.grad = None
            given, held = given.view_as(buffer.master), self._gradients[number]
            self._gradients[number] = given if held is None else held.float().add_(given)

    def take_gradients(self) -> list[Tensor | None]:
        """Return the gradient of each buffer, in the shape of its master, and forget them; None: it had no part in the loss."""
        taken = list(self._gradients)
        self._gradients[:] = [None] * len(taken)
        return taken

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the weights that the masters have now."""
        for buffer in self.buffers:
            if buffer.work.dtype != torch.float32:
                buffer.work.copy_(buffer.master)


def _shares(params: Mapping[str, nn.Parameter], limit: int) -> Iterable[dict[str, nn.Parameter]]:
    """Return the parameters of a group as one buffer each shall hold them, of `limit` weights at most or of one parameter."""
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


def _pack(params: dict[str, nn.Parameter], dtype: torch.dtype) -> Buffer:
    """Return a buffer of the parameters, which become views of it."""
    master = torch.cat([p.detach().float().flatten() for p in params.values()])
    if len(params) == 1:
        master = master.view_as(*params.values())
    buffer = Buffer(params, nn.Parameter(master), master.to(dtype))
    buffer.attach()
    return buffer
