"""What is said of a setting, beside its name, type and default. Plain data, no torch."""

from dataclasses import dataclass, field
from typing import Any

from .names import METHODS

AUTO = "auto"
"""The choice that leaves a setting to the preset."""


@dataclass(frozen=True)
class Setting:
    """What is said of a setting beside its name, type and default."""

    tooltip: str
    """What happens, then when one would change it, with a usual value."""
    low: float | None = None
    high: float | None = None
    """Bounds of a number, themselves allowed."""
    step: float | None = None
    """How far the widget's arrows move a number that is no whole one; whole numbers go by 1. What is typed is not rounded to it,
    as ComfyUI's page does by itself: js/views/numbers.js."""
    options: tuple[str, ...] = ()
    """All values of a choice."""
    decides: bool = True
    """Whether it decides the result. False for how fast it is reached and what is kept beside it: those are not in the key."""
    advanced: bool = True
    """Whether the node hides it at first."""
    methods: tuple[str, ...] = METHODS
    """Whose nodes have it as a widget."""
    inversion_default: float | None = None
    """What "own settings" takes in the node of Textual Inversion, where it is another than the field's default."""
    auto: Any = None
    """The value of the widget, and its default, that leaves the setting to the preset; None: no preset decides it.

    Only the widget has it: it is none of `options` and out of the bounds, unless it means the same to a run. presets.py puts
    something in its place.
    """
    multiline: bool = False
    placeholder: str = ""

    @property
    def widget_low(self) -> float | None:
        """Return the lower bound of the widget of a number."""
        return self.low if self.low is None or self.auto is None else min(self.low, self.auto)


def setting(default: Any, tooltip: str, *, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    """Return a dataclass field that carries a `Setting`. Raises TypeError for words that `Setting` does not have."""
    return field(default=default, metadata={"setting": Setting(tooltip, low, high, **more)})
