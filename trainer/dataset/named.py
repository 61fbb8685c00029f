"""How many things are named in a sentence. Plain data, no torch."""

from collections.abc import Sequence

from ..run.messages import Message, message

MAX_NAMED = 20
"""So many files are named in a sentence."""


def listed(items: Sequence[str | Message]) -> Message | Sequence[str | Message]:
    """Return the items as a value of a message: all of them, or the first MAX_NAMED and how many more there are."""
    if len(items) <= MAX_NAMED:
        return items
    return message("{items} and {more} more", items=items[:MAX_NAMED], more=len(items) - MAX_NAMED)
