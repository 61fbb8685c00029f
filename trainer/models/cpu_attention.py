"""How attention is computed on a CPU in bf16, where torch's flash attention takes two to four times as long for few scores."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor
from transformers import CLIPTextModel

SHORT = 2**19
"""Scores of a head below which they are computed by plain matrix products: those of 4096 latents with 77 tokens are, those of
1024 with each other are not."""


class CpuAttention:
    """diffusers' attention by plain matrix products for few scores, by flash attention for many, which would take memory."""

    def __init__(self):
        self._plain, self._flash = AttnProcessor(), AttnProcessor2_0()

    def __call__(self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args, **kwargs) -> Tensor:
        """Return what the layer `attn` makes of hidden states (B, N, C), looking at (B, M, D) or at themselves."""
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        attend = self._plain if hidden_states.shape[1] * keys.shape[1] <= SHORT else self._flash
        return attend(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def use_fast_attention(model: UNet2DConditionModel | CLIPTextModel, device: torch.device, dtype: torch.dtype) -> None:
    """Let a model attend in the faster way on a CPU in bf16; elsewhere the libraries' own way is the fastest."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return
    if isinstance(model, CLIPTextModel):
        model.set_attn_implementation("eager")
    else:
        processor: Any = CpuAttention()  # diffusers names its own classes
        model.set_attn_processor(processor)
