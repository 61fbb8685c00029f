"""How CLIP's tokenizer splits words, and what that means for a subject's token and for captions."""

from collections.abc import Mapping
from functools import cache

from ...trainer.dataset.named import listed
from ...trainer.run.messages import Message, message
from .folders import tokenizer_path

MAX_PIECES = 75
"""Pieces of a prompt that SD v1.5's text encoder reads: 77 with the marks of its begin and end."""
COMMON = 40_000
"""CLIP's vocabulary is ordered by how often its pieces were seen; words before this one have a firm meaning."""


@cache
def _tokenizer():
    from transformers import CLIPTokenizer  # here: it takes seconds to import

    return CLIPTokenizer.from_pretrained(tokenizer_path())


def clip_pieces(text: str) -> list[str]:
    """Return the pieces that CLIP splits a text into: "mysks" -> ["my", "sks"]."""
    return [piece.removesuffix("</w>") for piece in _tokenizer().tokenize(text)]


def known_token_note(token: str) -> Message | None:
    """Return a warning when CLIP has the token as a word of its own, or as several; None when it puts it together from pieces."""
    ids = _tokenizer()(token, add_special_tokens=False).input_ids
    if len(ids) != 1:
        words = all(piece.endswith("</w>") for piece in _tokenizer().tokenize(token))
        if words and max(ids) < COMMON:  # "plush-toy", "dog1"
            return message(
                "'{token}' is made of common words: your subject has to replace the meanings that they have. A rare word like "
                "'mysks' works better.",
                token=token,
            )
        return None
    if ids[0] < COMMON:
        return message(
            "'{token}' is a common word: your subject has to replace the meaning that it has. A rare word like 'mysks' "
            "works better.",
            token=token,
        )
    return message("CLIP already has the word '{token}', though a rare one: your subject will replace its meaning.", token=token)


def long_captions_note(captions: Mapping[str, str]) -> Message | None:
    """Return a warning that names the captions, {photo: caption}, which CLIP cannot read to their end; None if it reads all."""
    names = [name for name, text in captions.items() if len(_tokenizer().tokenize(text)) > MAX_PIECES]
    if not names:
        return None
    return message(
        "{count} of {total} captions are longer than the {most} pieces that CLIP reads; what follows is not seen: {names}.",
        count=len(names),
        total=len(captions),
        most=MAX_PIECES,
        names=listed(names),
    )
