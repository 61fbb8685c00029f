"""Sentences for users, kept as data: an English template and the values that vary in it.

A message is made where it is raised and put into words at the end, in the language of whoever reads it:

    raise UserError("There is no run {run!r}.", run=run_id)

`str(message)` is English. `message.text(catalog)` looks the template up in a catalog {English template: translated template},
as locales/<language>/messages.json holds it; values that are messages themselves are put into words by the same catalog.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

Catalog = Mapping[str, str]
ENGLISH: Catalog = {}
_PLURAL = re.compile(
    r"(?<!of\s)(?<!only\s)(\{(\w+)\}\s(?:class\s)?(?:photo|step|caption|image|line|tensor|vector))s\b"
    r"(?!\s(?:are|were|have|differ|come|that))"
)
"""Nouns after a number, where the rest of the sentence is the same for one; translations are worded for any number."""
_FORMAT_SPEC = re.compile(r"(0?\d)?(\.\d)?[dfg]?")
MAX_DEPTH = 8
MAX_FIELDS = 12
MAX_LENGTH = 100_000
"""How deep messages may lie in each other, how many fields and characters one may have, where they are read from a file."""


@dataclass(frozen=True)
class Message:
    """A sentence, or a part of one, as an English `str.format` template and its values by name.

    A value is text or a number, another message, or a list of these, which is joined by commas.
    """

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text(ENGLISH)

    def text(self, catalog: Catalog) -> str:
        """Return the sentence in the catalog's language; what the catalog lacks stays English."""
        values = {name: _in_words(value, catalog) for name, value in self.values.items()}
        return (catalog.get(self.template) or _with_singulars(self.template, self.values)).format(**values)

    def to_json(self) -> dict[str, Any]:
        """Return {"template", "values"} as JSON has it; `from_json` reads it."""
        return {"template": self.template, "values": {name: _encode(value) for name, value in self.values.items()}}

    @classmethod
    def from_json(cls, data: object, depth: int = 0) -> "Message":
        """Read what `to_json` wrote. Raises ValueError for anything else: it may come from somebody else's file."""
        if not isinstance(data, dict) or depth > MAX_DEPTH:
            raise ValueError("This is not a message, or its parts lie too deep in each other.")
        template, values = data.get("template"), data.get("values")
        if not isinstance(template, str) or not isinstance(values, dict):
            raise ValueError("A message has a template and values.")
        fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None]
        if len(fields) > MAX_FIELDS or not all(_is_fillable(*field, values) for field in fields):
            raise ValueError("The template of the message has fields that cannot be filled in.")
        message = cls(template, {name: _decode(value, depth + 1) for name, value in values.items()})
        try:
            length = len(str(message))
        except (OverflowError, TypeError) as error:
            raise ValueError(f"A value of the message does not suit its field: {error}") from None
        if length > MAX_LENGTH:  # at every depth, so that parts within parts cannot multiply
            raise ValueError("The message is too long.")
        return message


def message(template: str, /, **values: Any) -> Message:
    """Return the message of an English template and the values of its fields."""
    return Message(template, values)


class MessageError(Exception):
    """An error with a message for the user."""

    def __init__(self, template: str, /, **values: Any):
        self.message = Message(template, values)
        super().__init__(str(self.message))


class UserError(MessageError, ValueError):
    """Something that the user gave is wrong; the message says what, where, and what to do."""


def _is_fillable(name: str, spec: str | None, conversion: str | None, values: Mapping[str, Any]) -> bool:
    """Return whether a field of a template takes a value as a whole, and none of its attributes, in a harmless format."""
    known = name.isidentifier() and name in values
    return known and bool(_FORMAT_SPEC.fullmatch(spec or "")) and conversion in (None, "r")


def _with_singulars(template: str, values: Mapping[str, Any]) -> str:
    """Return an English template that says "1 photo" for the value 1, and "2 photos" for 2."""
    return _PLURAL.sub(lambda found: found[1] if values.get(found[2]) == 1 else found[0], template)


def _in_words(value: Any, catalog: Catalog) -> Any:
    if isinstance(value, Message):
        return value.text(catalog)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(_in_words(item, catalog)) for item in value)
    return value


def _encode(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_json()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_encode(item) for item in value]
    return value if isinstance(value, str | int | float) else str(value)


def _decode(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return Message.from_json(value, depth)
    if isinstance(value, list) and depth <= MAX_DEPTH:
        return [_decode(item, depth + 1) for item in value]
    if not isinstance(value, str | int | float):
        raise ValueError("A value of a message is text, a number, a message or a list of these.")
    return value
