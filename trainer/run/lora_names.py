"""What programs call the tensors of a LoRA file, and what these say of its rank. Plain data, no torch."""

from collections.abc import Mapping, Sequence

SUFFIXES = {
    "lora_A": (".lora_down", ".lora_A", ".lora_A.default", ".lora.down", "_lora.down", ".lora_linear_layer.down"),
    "lora_B": (".lora_up", ".lora_B", ".lora_B.default", ".lora.up", "_lora.up", ".lora_linear_layer.up"),
}
"""What programs call a factor of peft's, each before `.weight`, as ComfyUI's loader reads them; LoKr's have one name."""
_NARROW = (*(f"{suffix}.weight" for suffix in SUFFIXES["lora_A"]), ".lokr_w1_b", ".lokr_w2_b")
"""How the names of those factors end whose first dimension is the rank."""


def rank_of(shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the rank of a LoRA by the shapes of its tensors; 0 where these name none, or layers differ in theirs."""
    ranks = {shape[0] for name, shape in shapes.items() if name.endswith(_NARROW) and shape}
    return ranks.pop() if len(ranks) == 1 else 0
