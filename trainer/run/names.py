"""The names of the methods, and which tokens and run names can be used: each becomes a file name on every system."""

import re
import unicodedata

from .messages import UserError

DREAMBOOTH, TEXTUAL_INVERSION = "dreambooth", "textual_inversion"
METHODS = (DREAMBOOTH, TEXTUAL_INVERSION)
NO_LORA = "none"
"""What start_lora says where there is no LoRA to go on from."""
WIRED_LORA = "LORA_MODEL"
"""What stands for the name of a LoRA that comes from another node."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_NAME, _LONGEST_NAME_BYTES = 64, 190
"""A file's name may have 255 bytes, and a run's key and steps are added to it."""
_JOINERS = re.compile("(?<=[\\u0600-\\u0dff])[\\u200c\\u200d](?=[\\u0600-\\u0dff])|(?<=\\u0d4d)\\u200d")
"""Without them, words of Persian, Hindi, Sinhala or Malayalam are written wrong; elsewhere they cannot be seen."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def check_token(token: str) -> str:
    """Return the token without surrounding blanks. Raises UserError unless it is one word that can also be a file name."""
    token = token.strip()
    if not token:
        raise UserError("The token is empty. Give the subject a rare word of its own, for example 'mysks'.")
    if not _TOKEN.fullmatch(token) or token.lower() in _RESERVED:
        raise UserError(
            "The token {token!r} cannot be used: it must be one word of letters A-Z, digits, '-' and '_' (at most 64). Try "
            "'mysks'.",
            token=token,
        )
    return token


def check_name(name: str) -> str:
    """Return the run name without surrounding blanks, its accents composed, as macOS does not leave them.

    Raises UserError unless it is a plain file name on every system.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name:
        raise UserError("The name is empty. Give the run a name, for example 'my-plush-toy'.")
    if not _is_file_name(name) or name.endswith(".") or name.split(".")[0].strip().lower() in _RESERVED:
        raise UserError(
            "The name {name!r} cannot be a file name: use letters, digits, blanks, '.', '-' and '_' (at most 64, or 190 bytes), "
            "beginning with a letter or digit.",
            name=name,
        )
    return name


def _is_file_name(name: str) -> bool:
    """Return whether the name begins with a letter or digit of any script and goes on with such, their marks, and " .-_"."""
    letters = _JOINERS.sub("", name)
    plain = all(unicodedata.category(letter)[0] in "LNM" or letter in " .-_" for letter in letters)
    short = len(name) <= _LONGEST_NAME and plain and len(name.encode()) <= _LONGEST_NAME_BYTES
    return short and (unicodedata.category(name[0])[0] in "LN" or name[0] == "_")
