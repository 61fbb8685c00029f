"""What a run trains: a part a file. Plain data until a part is made: torch and the libraries are loaded then, not before.

A part of the U-Net (`UNet`, `LoRA`, `FrozenUNet`) is made from the base model and has the U-Net as `model`; a part of the text
side (`TextEncoder`, `TextLoRA`, `TokenRows`, `TokenVectors`) is made from the text encoder, which it changes in place. Each has

    memory(settings, base)   what it costs in memory and work, without making it
    title(settings)          what it trains in a few words; None where it trains nothing
    param_groups()           what the optimizer gets
    export(files)            puts what was trained into the files of the result
    own_settings(settings)   the names of settings that have no effect unless such a part is trained

    learning_rate            a usual one; 0 on the text side for that of the U-Net

one of the U-Net also

    result_kind              what the exported file is: "checkpoint", "lora" or "embedding"
    teach(noisy, t, states)  what it predicted before it was trained; not FrozenUNet's

and one of the text side also

    new_ids                  token ids that stand for the token in place of CLIP's own; most have none
    changes(ids)             which captions' text states depend on what it trains

A new part is a new file, and its name in `TRAIN`. What LoRA adds to a model, whichever it is, is in adapters.py.
"""

from typing import TYPE_CHECKING, Any

from ..run.names import TEXTUAL_INVERSION
from .frozen_unet import FrozenUNet
from .lora import LoRA
from .text_encoder import TextEncoder
from .text_lora import TextLoRA
from .token_rows import TokenRows
from .token_vectors import TokenVectors
from .unet import UNet

if TYPE_CHECKING:
    from ..run.run_dir import Run

TRAIN: dict[str, tuple[Any, ...]] = {
    "unet": (UNet,),
    "unet_and_token": (UNet, TokenRows),
    "unet_and_text_encoder": (UNet, TextEncoder),
    "lora": (LoRA,),
    "lora_and_token": (LoRA, TokenVectors),
    "lora_and_text_encoder": (LoRA, TextLoRA),
}
"""The parts of each value of DreamBooth's `train`."""


def part_types(run: "Run") -> tuple[Any, ...]:
    """Return the classes of the run's parts, that of the U-Net first.

    In a DreamBooth run that was given an embedding, the token has vectors of its own in place of rows of CLIP's table.
    """
    if run.settings.method == TEXTUAL_INVERSION:
        return FrozenUNet, TokenVectors
    parts = TRAIN[run.settings.dreambooth.train]
    if not run.embedding or TokenVectors in parts:
        return parts
    return (*(part for part in parts if part is not TokenRows), TokenVectors)


def unused_settings(run: "Run") -> set[str]:
    """Return the settings that belong to parts which the run does not train: they change nothing."""
    every = {name for parts in TRAIN.values() for part in parts for name in part.own_settings(run.settings)}
    return every.difference(*(part.own_settings(run.settings) for part in part_types(run)))
