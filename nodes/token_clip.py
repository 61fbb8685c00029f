"""A CLIP in which a trained token works as a plain word, without a change to ComfyUI's own classes."""

import re
from pathlib import Path

from ..trainer.config import Settings


class TokenTokenizer:
    """ComfyUI's tokenizer behind one rule: the bare token is read as `embedding:<file>`."""

    def __init__(self, tokenizer, token: str, embedding: str):
        self.inner = tokenizer
        self.token, self.embedding = token, embedding
        # The names of embeddings, by hand or by another rule like this one, stay whole. CLIP itself knows no upper case.
        self._pattern = re.compile(rf"(embedding:\S+)|(?<!\w){re.escape(token)}(?!\w)", re.IGNORECASE)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs):
        spelled = f" embedding:{self.embedding} "  # ComfyUI looks for embeddings after white space
        text = self._pattern.sub(lambda match: match[1] or spelled, text)
        return self.inner.tokenize_with_weights(text, return_word_ids, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self.inner, name)


def clip_with_token(clip, token: str, embedding_file: Path):
    """A clone of a ComfyUI CLIP that understands the token; the original stays as it is."""
    clip = clip.clone()
    clip.tokenizer = TokenTokenizer(clip.tokenizer, token, embedding_file.stem)
    return clip


def embedding_of(clip, token: str) -> str:
    """Name of the embedding that the token means in a CLIP which a node of this pack gave; "" in any other."""
    tokenizer = clip.tokenizer
    while isinstance(tokenizer, TokenTokenizer):
        if tokenizer.token.lower() == token.lower():
            return tokenizer.embedding
        tokenizer = tokenizer.inner
    return ""


def prompt_text(settings: Settings, embedding: Path | None) -> str:
    """What means the subject in a prompt: an embedding in ComfyUI's spelling, which every CLIP knows, or the token."""
    return settings.trigger(f"embedding:{embedding.stem}" if embedding else settings.token)
