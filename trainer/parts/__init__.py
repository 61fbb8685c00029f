"""What a run trains: a part a file. Plain data until a part is made: torch and the libraries are loaded then, not before.

part.py says what a part offers: one of the U-Net (`UNet`, `LoRA`, `FrozenUNet`) is a `UNetPart`, one of the text side
(`TextEncoder`, `TextLoRA`, `TokenRows`, `TokenVectors`) a `TextPart`. A new part is a new file, and its name in `TRAIN`. What
LoRA adds to a model, whichever it is, is in adapters.py.
"""

from typing import TYPE_CHECKING

from ..run.names import TEXTUAL_INVERSION
from .frozen_unet import FrozenUNet
from .lora import LoRA
from .text_encoder import TextEncoder
from .text_lora import TextLoRA
from .token_rows import TokenRows
from .token_vectors import TokenVectors
from .unet import UNet

if TYPE_CHECKING:
    from typing_extensions import Unpack  # Python 3.10 cannot write tuple[first, *others]

    from ..run.run_dir import Run
    from .part import TextPart, UNetPart

    PartTypes = tuple[type[UNetPart], Unpack[tuple[type[TextPart], ...]]]

TRAIN: "dict[str, PartTypes]" = {
    "unet": (UNet,),
    "unet_and_token": (UNet, TokenRows),
    "unet_and_text_encoder": (UNet, TextEncoder),
    "lora": (LoRA,),
    "lora_and_token": (LoRA, TokenVectors),
    "lora_and_text_encoder": (LoRA, TextLoRA),
}
"""The parts of each value of DreamBooth's `train`."""


def part_types(run: "Run") -> "PartTypes":
    """Return the classes of the run's parts, that of the U-Net first.

    In a DreamBooth run that was given an embedding, the token has vectors of its own in place of rows of CLIP's table.
    """
    if run.settings.method == TEXTUAL_INVERSION:
        return FrozenUNet, TokenVectors
    unet, *text = TRAIN[run.settings.dreambooth.train]
    if run.embedding and TokenVectors not in text:
        text = [*(part for part in text if part is not TokenRows), TokenVectors]
    return unet, *text


def unused_settings(run: "Run") -> set[str]:
    """Return the settings that belong to parts which the run does not train: they change nothing."""
    every = {name for parts in TRAIN.values() for part in parts for name in part.own_settings(run.settings)}
    return every.difference(*(part.own_settings(run.settings) for part in part_types(run)))
