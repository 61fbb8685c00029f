"""The text embeddings of the captions, CLIP's last hidden states ("states" in names).

All are encoded once; those that training changes are encoded again at each step.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ..context import Context
from ..dataset.photos import Dataset
from ..models.sd15 import DTYPES, cast_frozen
from ..models.token_embedding import tokenize_captions
from ..parts.adapters import adapters_off
from ..parts.part import TextPart
from ..run.stop_request import StopRequest
from .batches import to_device
from .disk_cache import DiskCache

EMPTY = 0
"""Index of the empty caption in every `Captions`."""


@dataclass(frozen=True)
class Captions:
    """All C distinct captions of a run and their text embeddings."""

    texts: tuple[str, ...]
    """The empty one first."""
    ids: Tensor
    """(C, 77) int64, on the device."""
    changing: tuple[bool, ...]
    """Which captions' text embeddings depend on what is trained."""
    frozen: Tensor
    """(C, 77, 768) fp32, on the CPU: the text embeddings before training, without a LoRA that the run goes on from."""
    text_encoder: CLIPTextModel | None
    """None when nothing of it is trained."""

    def frozen_states(self, captions: Sequence[int]) -> Tensor:
        """Return (B, 77, 768) fp32: the text embeddings of captions as they were before training."""
        return to_device(self.frozen[list(captions)], self.ids.device)

    def states(self, captions: Sequence[int]) -> Tensor:
        """Return (B, 77, 768) fp32: the text embeddings of the captions of a batch, each distinct one encoded once."""
        distinct = sorted(set(captions), key=lambda c: (self.changing[c], c))
        changing = [c for c in distinct if self.changing[c]]
        frozen = [c for c in distinct if not self.changing[c]]
        device = self.ids.device
        states = [self.frozen_states(frozen)] if frozen else []
        if changing:
            assert self.text_encoder is not None
            states.append(self.text_encoder(self.ids[to_device(torch.tensor(changing), device)]).last_hidden_state)
        rows = torch.tensor([distinct.index(c) for c in captions])
        return torch.cat([s.float() for s in states])[to_device(rows, device)]


def has_any(ids: Tensor, wanted: Sequence[int]) -> list[bool]:
    """Return for each caption of token ids (C, 77) whether it holds any of the wanted ids."""
    return torch.isin(ids, torch.tensor(wanted, device=ids.device)).any(dim=1).tolist()


def encode_captions(
    context: Context,
    captions: Sequence[str],
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    text_parts: Sequence[TextPart],
) -> Captions:
    """Encode the captions, that of a teacher and the sample prompts; what no trained part can change is encoded for good.

    After that the text encoder works in the compute dtype.
    """
    settings = context.settings
    of_teacher = [settings.dreambooth.class_prompt] if settings.has_class_teacher else []
    texts = list(dict.fromkeys([*captions, *of_teacher, *settings.samples.sample_prompts]))
    ids = tokenize_captions(tokenizer, texts, settings.token, text_parts).to(context.device)
    changes = [part.changes(ids) for part in text_parts]
    changing = [any(of_caption) for of_caption in zip([False] * len(ids), *changes, strict=True)]
    with adapters_off(text_encoder) if context.run.lora else nullcontext():  # of those that it changes a teacher reads alone
        encoded = cache_captions(texts, ids, text_encoder, changing, context.run_dir.path, context.stop)
    cast_frozen(text_encoder, DTYPES[settings.training.precision])
    return encoded


@torch.no_grad()
def cache_captions(
    texts: Sequence[str], ids: Tensor, text_encoder: CLIPTextModel, changing: Sequence[bool], folder: Path, stop: StopRequest
) -> Captions:
    """Encode all captions, token ids (C, 77) on the text encoder's device; the embeddings go to a file below `folder`."""
    cache = DiskCache(folder)
    for some in ids.split(16):
        stop.check()
        for states in text_encoder(some).last_hidden_state:
            cache.append(states)
    return Captions(tuple(texts), ids, tuple(changing), cache.stack(), text_encoder if any(changing) else None)


def distinct_captions(datasets: Sequence[Dataset]) -> list[str]:
    """Return the empty caption, then all others of the datasets in order."""
    return ["", *sorted({text for dataset in datasets for photo in dataset.photos for text in photo.captions} - {""})]
