"""What is checked of many values alike. Plain data, no torch."""

from collections.abc import Sequence
from typing import Any

from .messages import UserError


def check_option(name: str, value: Any, options: Sequence[str]) -> None:
    """Raise UserError unless the value is one of the options."""
    if value not in options:
        raise UserError("Unknown {name} {value!r}; known are {options}.", name=name, value=value, options=options)


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError unless the value lies between the bounds, themselves allowed."""
    if not low <= value <= high:
        raise UserError("{name} is {value}; it must be between {low} and {high}.", name=name, value=value, low=low, high=high)
