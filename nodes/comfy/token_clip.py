"""A CLIP in which a trained token works as a plain word, without a change to ComfyUI's own classes."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...trainer.run.messages import UserError
from ...trainer.run.run_dir import EMBEDDING_KEY
from ...trainer.run.settings import Settings


class TokenTokenizer:
    """ComfyUI's tokenizer behind one rule: the bare token is read as `embedding:<file>`."""

    def __init__(self, tokenizer, token: str, embedding: str):
        self.inner = tokenizer
        self.token, self.embedding = token, embedding
        # The first alternative keeps the names of embeddings whole, whether the user wrote them or another rule like this one.
        # CLIP itself knows no upper case.
        self._pattern = re.compile(rf"(embedding:\S+)|(?<!\w){re.escape(token)}(?!\w)", re.IGNORECASE)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs):
        """Tokenize a prompt as ComfyUI does, with the token spelled as its embedding."""
        spelled = f" embedding:{self.embedding} "  # ComfyUI looks for embeddings after white space
        text = self._pattern.sub(lambda match: match[1] or spelled, text)
        return self.inner.tokenize_with_weights(text, return_word_ids, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self.inner, name)


def clip_with_token(clip, token: str, embedding_file: Path):
    """Return a clone of a ComfyUI CLIP that understands the token; the original stays as it is.

    Raises UserError where ComfyUI reads another embedding by the file's name, or none: the prompt would be of something else.
    """
    read = read_in_prompt(clip.tokenizer, embedding_file.stem)
    vectors = load_file(embedding_file)[EMBEDDING_KEY]
    if not (len(read) == len(vectors) and all(map(torch.equal, read, vectors))):
        raise UserError(
            "The embedding {file} cannot be written in a prompt: by this name, ComfyUI reads another one or none. Rename the "
            "file: without blanks and parentheses, and as no other embedding is called.",
            file=embedding_file.name,
        )
    clip = clip.clone()
    clip.tokenizer = TokenTokenizer(clip.tokenizer, token, embedding_file.stem)
    return clip


def read_in_prompt(tokenizer, stem: str) -> list[torch.Tensor]:
    """Return the vectors, (768) each, that a prompt with the embedding of this name is read with."""
    batches = tokenizer.tokenize_with_weights(f" embedding:{stem} ")  # of a CLIP with one text encoder, by its name
    return [token for batch in next(iter(batches.values())) for token, *_ in batch if torch.is_tensor(token)]


def embedding_of(clip, token: str) -> str:
    """Return the name of the embedding that the token means in a CLIP of this pack, or "" in any other CLIP."""
    tokenizer = clip.tokenizer
    while isinstance(tokenizer, TokenTokenizer):
        if tokenizer.token.lower() == token.lower():
            return tokenizer.embedding
        tokenizer = tokenizer.inner
    return ""


def prompt_text(settings: Settings, embedding: Path | None) -> str:
    """Return what means the subject in a prompt: `embedding:<file>`, which every CLIP understands, or else the token."""
    return settings.trigger(f"embedding:{embedding.stem}" if embedding else settings.token)
