"""Converts what a node is given to the types of its sockets: by a link, ComfyUI passes on whatever another node returns."""

import functools
import math
import operator
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.messages import Message, UserError, message


def checked_inputs(execute: Callable) -> Callable:
    """Decorate a node's `execute` so that each input is of its socket's type. Raises UserError for what is not.

    An optional input that is None, as nodes without a result return, is left out: it then has its default. Of a node that takes
    lists, a socket without one gets an empty list: that nothing came is not that nothing is wired.
    """

    @functools.wraps(execute)
    def execute_checked(cls, **given):
        schema = cls.SCHEMA or cls.define_schema()
        inputs = {known.id: known for known in schema.inputs}
        checked = {}
        for name, value in given.items():
            values = unnested(value) if schema.is_input_list and isinstance(value, list | tuple) else [value]
            kept = [item for item in values if not (item is None and inputs[name].optional)]
            is_required, has_default = not inputs[name].optional, getattr(inputs[name], "default", None) is not None
            if kept or is_required or (schema.is_input_list and not has_default):
                kept = [coerce_input(name, inputs[name].io_type, item) for item in kept or [None] * is_required]
                checked[name] = kept if schema.is_input_list else kept[0]
        return execute(cls, **checked)

    return execute_checked


def unnested(values: Sequence) -> list:
    """Return the values, those of a list among them one by one: many a node returns a list where it should return a value.

    An empty one stays, to be refused: nothing at all would pass for an input that is not wired.
    """
    return [inner for value in values for inner in (value if isinstance(value, list | tuple) and value else [value])]


def coerce_input(name: str, socket: str, value: Any) -> Any:
    """Return a value as a socket's type, "INT" for example. Raises UserError where it is of another."""
    if socket not in SOCKETS:
        return value
    convert, kind = SOCKETS[socket]
    try:
        return convert(value)
    except Exception:  # of any kind: it may be anything, with methods of its own
        raise UserError("{name} is {value}; it must be {kind}.", name=name, value=_short(value), kind=kind) from None


def text(value: Any) -> str:
    """Return a text as it is. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool | str) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _whole_number(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, float):
        if not value.is_integer():
            raise TypeError
        return int(value)
    return operator.index(value)


def _on_or_off(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _photos(value: Any) -> PhotoDataset:
    if not isinstance(value, PhotoDataset):
        raise TypeError
    return value


def _pictures(value: Any) -> torch.Tensor:
    if not (torch.is_tensor(value) and value.ndim):
        raise TypeError
    return value


def _tensors(value: Any) -> dict:
    if not (isinstance(value, dict) and value and all(map(torch.is_tensor, value.values()))):
        raise TypeError
    return value


def _with(*names: str) -> Callable[[Any], Any]:
    """Return a check of one of ComfyUI's own objects, by what it has."""

    def check(value: Any) -> Any:
        if value is not None and not all(hasattr(value, name) for name in names):  # None is told of by what needs it
            raise TypeError
        return value

    return check


def _needed(*names: str) -> Callable[[Any], Any]:
    """Return the same check for a socket that nothing can be done without."""

    def check(value: Any) -> Any:
        if value is None:
            raise TypeError
        return _with(*names)(value)

    return check


SOCKETS: dict[str, tuple[Callable[[Any], Any], Message]] = {
    "STRING": (text, message("a text")),
    "COMBO": (text, message("one of its options")),
    "INT": (_whole_number, message("a whole number")),
    "FLOAT": (_number, message("a number")),
    "BOOLEAN": (_on_or_off, message("true or false")),
    "IMAGE": (_pictures, message("pictures, as an IMAGE is")),
    "MASK": (_pictures, message("masks, as a MASK is")),
    "SUBJECT_DATASET": (_photos, message("photos from Load Photos of a Subject")),
    "MODEL": (_needed("model", "object_patches"), message("a MODEL, as Load Checkpoint gives it")),
    "CLIP": (_with("cond_stage_model", "patcher"), message("a CLIP, as Load Checkpoint gives it")),
    "VAE": (_with("first_stage_model"), message("a VAE, as Load Checkpoint gives it")),
    "LORA_MODEL": (_tensors, message("a LORA_MODEL, as a training node gives it")),
    "CLIP_VISION": (_needed("encode_image"), message("a CLIP_VISION, as Load CLIP Vision gives it")),
}
"""By the type of a socket: what turns a value into it, or raises anything, and what the user is told of it."""


def _short(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except Exception:  # of any kind, from its own __repr__
        return type(value).__name__
