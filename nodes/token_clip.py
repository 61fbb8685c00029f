"""A CLIP in which a trained token works as a plain word, without a change to ComfyUI's own classes."""

import re
from pathlib import Path

from ..trainer.config import Settings


class TokenTokenizer:
    """ComfyUI's tokenizer behind one rule: the bare token is read as `embedding:<file>`."""

    def __init__(self, tokenizer, token: str, embedding: str):
        self._tokenizer = tokenizer
        # Not behind a colon: there an embedding was named on purpose. CLIP itself knows no upper case.
        self._token = re.compile(rf"(?<![\w:]){re.escape(token)}(?!\w)", re.IGNORECASE)
        self._embedding = f" embedding:{embedding} "  # ComfyUI looks for embeddings after white space

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs):
        text = self._token.sub(lambda _: self._embedding, text)
        return self._tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)


def clip_with_token(clip, token: str, embedding_file: Path):
    """A clone of a ComfyUI CLIP that understands the token; the original stays as it is."""
    clip = clip.clone()
    clip.tokenizer = TokenTokenizer(clip.tokenizer, token, embedding_file.stem)
    return clip


def prompt_text(settings: Settings, exported: Path) -> str:
    """What means the subject in a prompt, class included: for an inversion in ComfyUI's spelling, which every CLIP knows."""
    token = f"embedding:{exported.stem}" if settings.method == "textual_inversion" else settings.token
    return f"{token} {settings.class_word}".strip()
