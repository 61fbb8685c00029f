"""How CLIP reads words, and what speaks against them as a token or a caption."""

from collections.abc import Mapping
from functools import cache

from ..trainer.photos import listed
from . import host

READ = 75
"""Pieces of a prompt that SD v1.5's text encoder reads: 77 with its marks of begin and end."""

COMMON = 40_000
"""CLIP's vocabulary is ordered by how often its pieces were seen; words before this one have a firm meaning."""


@cache
def _tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(host.tokenizer_path())


def clip_pieces(word: str) -> list[str]:
    """How CLIP splits a word: "mysks" -> ["my", "sks"]."""
    return [piece.removesuffix("</w>") for piece in _tokenizer().tokenize(word)]


def known_word(token: str) -> str:
    """A sentence where CLIP has the token as one word of its own; "" where it is put together from pieces."""
    ids = _tokenizer()(token, add_special_tokens=False).input_ids
    if len(ids) != 1:
        return ""
    if ids[0] < COMMON:
        return (
            f"'{token}' is a common word, with a meaning of its own that your subject has to replace. Better a word like 'mysks'."
        )
    return f"CLIP already has the word '{token}', though a rare one: your subject replaces what it meant."


def too_long(captions: Mapping[str, str]) -> str:
    """A sentence where CLIP cannot read captions to their end, {photo: caption}; "" where it can."""
    long = [name for name, text in captions.items() if len(_tokenizer().tokenize(text)) > READ]
    if not long:
        return ""
    return (
        f"{len(long)} of {len(captions)} captions are longer than the {READ} pieces that CLIP reads; what follows is not seen: "
        f"{listed(long)}."
    )
