"""The names of the methods, and which tokens and run names can be used: each becomes a file name on every system."""

import re

from .messages import UserError

DREAMBOOTH, TEXTUAL_INVERSION = "dreambooth", "textual_inversion"
METHODS = (DREAMBOOTH, TEXTUAL_INVERSION)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"\w[\w .-]{0,63}")
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
    """Return the run name without surrounding blanks. Raises UserError unless it is a plain file name on every system."""
    name = name.strip()
    if not name:
        raise UserError("The name is empty. Give the run a name, for example 'my-plush-toy'.")
    if not _NAME.fullmatch(name) or name.endswith(".") or name.split(".")[0].strip().lower() in _RESERVED:
        raise UserError(
            "The name {name!r} cannot be a file name: use letters, digits, blanks, '.', '-' and '_' (at most 64), beginning with "
            "a letter or digit.",
            name=name,
        )
    return name
