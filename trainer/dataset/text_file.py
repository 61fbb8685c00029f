"""Text files of any program: their encodings, and what cannot stand in a caption. Plain data, no torch."""

import codecs
import re
import unicodedata

from ..run.messages import Message, UserError, message

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LINE_END = re.compile(r"\r\n|\r|\n")
"""Not what splitlines takes for one, too: U+2028 and others come with copied texts, and JSON may hold them as they are."""
_FOREIGN_WORD = re.compile(r"[^\W\d_\x00-\x7f]{2,}")
_WESTERN = re.compile("[\x00-\x7fÀ-ÖØ-öø-ÿŒœŠšŽžŸ‘’“”„‚…–—«»°€£§·¿¡\xa0]*")
"""What captions in Western languages are written with."""
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
_UNSEEN = re.compile("[\\x00-\\x08\\x0e-\\x1b\\x7f-\\x84\\x86-\\x9f\\ud800-\\udfff]")
"""Control characters but for blanks, and halves of letters (surrogates)."""
_ZERO_WIDTH = re.compile("[\\u061c\\u200b\\u200e\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff]+")
"""Blanks without width, and marks of the byte order and of the direction; not the joiners, which letters and emoji need."""
_FILLERS = str.maketrans("\u2800\u3164\uffa0", "   ")
"""Braille without a dot and Hangul's fillers, which are copied as blanks."""
_MOST_CONTROLS = 1 / 8
"""Of a text's letters: more of them, and it is UTF-16 of a script without zeros, or no text."""


def decode_text(raw: bytes, name: str) -> tuple[str, Message | None]:
    """Return the text of a file, and a note where its encoding was guessed.

    UTF-8, UTF-16 or UTF-32 by their marks; UTF-16 without a mark by its zeros; else UTF-8; else Windows-1252, where that gives
    words in Latin letters. Raises UserError for anything else: other code pages cannot be told from each other.
    """
    try:
        for mark, encoding in _BOMS:
            if raw.startswith(mark):
                return raw.decode(encoding).rstrip("\0"), None
        raw = _without_padding(raw)
        if b"\0" in raw:
            sides = raw[::2].count(0), raw[1::2].count(0)
            if min(sides) or 2 * max(sides) < len(raw[::2]):
                raise UnicodeError
            return raw.decode("utf-16-le" if sides[1] else "utf-16-be").rstrip("\0"), None
        text = raw.decode("utf-8")
        if len(_CONTROLS.findall(text)) > len(text) * _MOST_CONTROLS:
            raise UnicodeError
        return text, None
    except UnicodeError:
        text = _western(raw.removeprefix(codecs.BOM_UTF8))  # a program may have added to another's file
        if text is None:
            raise UserError("The encoding of {name} cannot be told. Save it as UTF-8.", name=name) from None
        first = next(line for line in text.splitlines() if not line.isascii())
        note = message("{name} is not UTF-8, and was read as Windows-1252: {text!r}.", name=name, text=clean(first)[:60])
        return text, note


def clean(text: str) -> str:
    """Return the text on one line, without what cannot be seen, its accents composed, as macOS does not leave them."""
    text = _ZERO_WIDTH.sub(_parting, _UNSEEN.sub("", text).translate(_FILLERS))
    return " ".join(unicodedata.normalize("NFC", text).split())


def _parting(unseen: re.Match) -> str:
    """Return what stands for zero-width characters: a blank between two letters, which they part, else nothing."""
    text, start, end = unseen.string, unseen.start(), unseen.end()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    parted = before and unicodedata.category(before)[0] in "LMN" and after and unicodedata.category(after)[0] in "LN"
    return " " if parted else ""  # an accent behind it belongs to the letter before it


def _without_padding(raw: bytes) -> bytes:
    """Return the bytes without the zeros that some programs add at the end; in UTF-16 one may belong to the last letter."""
    length = len(raw.rstrip(b"\0"))
    if b"\0" in raw[:length]:
        length += length % 2
    return raw[:length] or raw


def _western(raw: bytes) -> str | None:
    """Return Windows-1252 text, or None where it does not look like a Western language: a word has a Latin letter, too."""
    if b"\0" in raw:
        return None
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return None
    western = _WESTERN.fullmatch(text) and not _CONTROLS.search(text)
    return text if western and not text.isascii() and not _FOREIGN_WORD.search(text) else None
