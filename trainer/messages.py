"""What the artist is told, in other languages than English. Plain data, no torch.

The code speaks English, and so do the pack's logs and run directories. `locales/<language>/messages.json` has its sentences as
they stand in the code, with {} for what varies, {:n} for a number: {"There is no run {}.": "Запуску {} немає."}. They are
looked up where they are shown, so that a sentence may come from the worker, or from a run of last year.
"""

import json
import re
from functools import cache
from pathlib import Path
from string import Formatter

ENGLISH = "en"
LOCALES = Path(__file__).parent.parent / "locales"
LONGEST = 1000
"""Characters of a line that is looked up. Longer ones stay English: they hold what somebody has written, and the time of the
search grows with its third power at worst."""
DEEPEST = 3
"""So deep may sentences lie in each other: "images cannot be read: a.jpg (damaged: ...) and 3 more"."""
NUMBER = r"(-?[\d.]+|nan|inf)"


@cache
def _sentences(language: str) -> list[tuple[re.Pattern, str]]:
    """Pattern of the English, translation; those with the most words of their own first."""
    file = LOCALES / language / "messages.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def own_words(english: str) -> int:
        return sum(len(text) for text, *_ in Formatter().parse(english))

    return [(_pattern(english), known[english]) for english in sorted(known, key=own_words, reverse=True)]


def _pattern(sentence: str) -> re.Pattern:
    kinds = {None: "", "": "(.*?)", "n": NUMBER}
    parts = (re.escape(text) + kinds[kind if field is not None else None] for text, field, kind, _ in Formatter().parse(sentence))
    return re.compile("".join(parts), re.DOTALL)


@cache
def languages() -> frozenset[str]:
    """Those that there are sentences in."""
    return frozenset({ENGLISH, *(path.parent.name for path in LOCALES.glob("*/messages.json"))})


def translated(text: str, language: str) -> str:
    """The text, each line of it looked up; what is not known stays as it is."""
    if language == ENGLISH:
        return text
    return "\n".join(_line(line, language) for line in text.split("\n"))


def _line(line: str, language: str, depth: int = 0) -> str:
    for pattern, sentence in _sentences(language) if len(line) <= LONGEST else ():
        found = pattern.fullmatch(line)
        if found:
            return sentence.format(*(_part(part, language, depth + 1) for part in found.groups()))
    return line


def _part(part: str, language: str, depth: int) -> str:
    """What varies in a sentence may be known itself, or be a list of what is. In quotes it is somebody's own text."""
    if depth > DEEPEST or part[:1] in ("'", '"'):
        return part
    items = part.split(", ")
    if len(items) == 1:
        return _line(part, language, depth)
    listed = ", ".join(_line(item, language, depth) for item in items)
    return listed if listed != part else _line(part, language, depth)
