"""What a run trains: a part a file. Plain data until a part is made: torch and the libraries are loaded then, not before.

part.py says what a part offers: one of the U-Net (`UNet`, `LoRA`, `FrozenUNet`) is a `UNetPart`, one of the text side
(`TextEncoder`, `TextLoRA`, `TokenRows`, `TokenVectors`) a `TextPart`. A new part is a new file, and its name in `TRAIN`. What
LoRA adds to a model, whichever it is, is in adapters.py; what parts of one side share, in unet_side.py and text_side.py.
"""

from collections.abc import Iterable
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
    from ..run.settings import Settings
    from .part import Part, TextPart, UNetPart

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
    """Return the classes of the run's parts, that of the U-Net first."""
    if run.settings.method == TEXTUAL_INVERSION:
        return FrozenUNet, TokenVectors
    return _dreambooth_parts(run.settings.dreambooth.train, bool(run.embedding))


def _dreambooth_parts(train: str, has_embedding: bool) -> "PartTypes":
    """Return the parts of a value of `train`; with an embedding the token has its vectors in place of rows of CLIP's table."""
    unet, *text = TRAIN[train]
    if has_embedding and TokenVectors not in text:
        text = [*(part for part in text if part is not TokenRows), TokenVectors]
    return unet, *text


def unused_settings(run: "Run") -> set[str]:
    """Return the settings that belong to parts which the run does not train: they change nothing."""
    return _unused(run.settings, part_types(run))


def never_used(settings: "Settings") -> set[str]:
    """Return the settings that no DreamBooth run with this `train` uses, whether it is given an embedding or not."""
    train = settings.dreambooth.train
    return _unused(settings, (*_dreambooth_parts(train, False), *_dreambooth_parts(train, True)))


def _unused(settings: "Settings", trained: "Iterable[type[Part]]") -> set[str]:
    every = {name for parts in TRAIN.values() for part in parts for name in part.own_settings(settings)}
    return every.difference(*(part.own_settings(settings) for part in trained))
