"""What the parts of a run cost in memory: the figures of SD v1.5, and what a part says of itself. Plain data, no torch."""

from dataclasses import dataclass, field

SD15_UNET = 859_520_964
"""Weights of SD v1.5's U-Net."""
TEXT_ENCODER = 123_060_480
"""Weights of CLIP-L's text encoder."""
EMBEDDING_WIDTH = 768
"""Numbers in an embedding vector."""


@dataclass(frozen=True)
class BaseSize:
    """How large the base model is."""

    unet_weights: int
    file_bytes: float


@dataclass(frozen=True)
class PartMemory:
    """What a part keeps on the device, by names of models: what one part trains is not counted as frozen for another."""

    trained: dict[str, float] = field(default_factory=dict)
    """Number of fp32 weights with gradient and optimizer state."""
    frozen: dict[str, float] = field(default_factory=dict)
    """Bytes of weights that are only read."""
    cast: float = 0.0
    """Number of trained weights of which autocast keeps a copy in half precision."""
    exported: float = 0.0
    """Bytes of the exported file."""


def frozen_bytes(weights: float, precision: str) -> float:
    """Return the bytes of weights that are frozen as the type of the forward pass."""
    return weights * (4 if precision == "fp32" else 2)
