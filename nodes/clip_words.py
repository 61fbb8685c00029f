"""How CLIP reads a word, and what speaks against it as a token."""

from functools import cache

from . import host

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
