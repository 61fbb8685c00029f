"""What the parts of a run cost: the figures of SD v1.5, and what a part says of itself. Plain data, no torch."""

from dataclasses import dataclass, field

SD15_UNET_WEIGHTS = 859_520_964
"""Weights of SD v1.5's U-Net."""
TEXT_ENCODER_WEIGHTS = 123_060_480
"""Weights of CLIP-L's text encoder."""
BUFFER_WEIGHTS = 2**25
"""Weights of a buffer of masters at most, where no single parameter has more: a step has the fp32 gradients of one at a time."""
EMBEDDING_WIDTH = 768
"""Numbers in an embedding vector."""
FORWARD_FLOP = 0.8e12
"""Floating point operations of a 512 x 512 sample's forward pass through SD v1.5's U-Net."""
FULL_FLOP = 2.41e12
"""Those of its forward and backward pass where the gradients of all weights are computed, too."""
FROZEN_FLOP = 1.7e12
"""Those of both where gradients only flow through the frozen layers, to what is trained beside or before them."""

UNET, TEXT_ENCODER = "unet", "text_encoder"
TEACHER, LORA, LOKR, TEXT_LORA, TOKEN_VECTORS = "teacher", "lora", "lokr", "text_lora", "token_vectors"
"""What holds memory, as every part names it: what one part trains is not counted as frozen for another."""


@dataclass(frozen=True)
class BaseSize:
    """How large the base model is."""

    unet_weights: int
    file_bytes: float


@dataclass(frozen=True)
class PartMemory:
    """What a part costs: on the device by what holds it, UNET and the others."""

    trained_weights: dict[str, float] = field(default_factory=dict)
    """Number of weights with fp32 master, gradient and optimizer state."""
    frozen_bytes: dict[str, float] = field(default_factory=dict)
    """Bytes of weights that are only read."""
    exported_bytes: float = 0.0
    """Bytes of the exported file."""
    activations: float = 0.0
    """Bytes that a 512 x 512 sample keeps in SD v1.5's U-Net for the backward pass, in bf16 without gradient checkpointing.

    Counted over the tensors that autograd keeps, with norms in fp32 as a card was measured with. A layer keeps its input
    only where its own weights, or those of an adapter, are trained. The text side's are a few MB.
    """
    flop: float = 0.0
    """Floating point operations of such a sample, forward and backward."""


def bytes_when_frozen(weights: float, precision: str) -> float:
    """Return the bytes of weights that are frozen as the type of the forward pass."""
    return weights * (4 if precision == "fp32" else 2)
