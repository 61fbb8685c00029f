"""What a part must offer: anything that has these is one, without naming them. Plain data, no torch."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..run.messages import Message
from .memory import BaseSize, PartMemory

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

    from ..context import Context
    from ..models.sd15 import BaseModel
    from ..run.settings import Settings
    from ..training.export import ResultFiles
    from ..training.optimizers import ParamGroup


class Part(Protocol):
    """Something that is trained, or what it is trained through."""

    learning_rate: float
    """A usual one; 0 on the text side for that of the U-Net."""
    published: tuple[float, int] | None
    """Rate and steps of an example that is published, the fewest; None for vectors of the token, which go by their own size."""

    @staticmethod
    def title(settings: "Settings") -> Message | None:
        """Return in a few words what the part trains; None where it trains nothing."""

    @staticmethod
    def own_settings(settings: "Settings") -> tuple[str, ...]:
        """Return the names of settings that have no effect, and are not in the key, unless such a part is trained."""
        ...

    @staticmethod
    def memory(settings: "Settings", base: BaseSize) -> PartMemory:
        """Return what the part costs in memory and work, without making it; trainer/run/resources.py adds it up."""
        ...

    def param_groups(self) -> "list[ParamGroup]":
        """Return what the optimizer gets, with learning rate and decay."""
        ...

    def export(self, files: "ResultFiles") -> None:
        """Put what was trained into the files of the result."""


class UNetPart(Part, Protocol):
    """A part of the U-Net, made from the base model."""

    result_kind: str
    """What the exported file is: "checkpoint", "lora" or "embedding"."""
    model: "UNet2DConditionModel"

    def __init__(self, context: "Context", base: "BaseModel"): ...

    @property
    def teach(self) -> "Callable[[Tensor, Tensor, Tensor], Tensor] | None":
        """Return the function of (noisy latents, timesteps, text embeddings) that says what the U-Net predicted before training.

        None for one that cannot be its own teacher.
        """


class TextPart(Part, Protocol):
    """A part of the text side, made from the text encoder, which it changes in place."""

    @property
    def new_ids(self) -> Sequence[int]:
        """Return the ids that stand for the token in place of CLIP's own; most parts have none."""
        ...

    def __init__(self, context: "Context", text_encoder: "CLIPTextModel", tokenizer: "CLIPTokenizer"): ...

    def changes(self, ids: "Tensor") -> list[bool]:
        """Return for each caption of token ids (C, 77) that its text embeddings depend on what is trained."""
        ...
