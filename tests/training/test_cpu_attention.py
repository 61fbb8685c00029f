"""Attention on a CPU in bf16: another way to the same numbers."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from trainer.models.cpu_attention import SHORT, CpuAttention, use_fast_attention

CPU, BF16 = torch.device("cpu"), torch.bfloat16


def make_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    channels, kinds = (32, 32), ("CrossAttnDownBlock2D", "DownBlock2D")
    return UNet2DConditionModel(
        block_out_channels=channels,
        down_block_types=kinds,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def outcome(model: torch.nn.Module, *given: torch.Tensor, **named: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a model gives, and its gradients, one after the other."""
    found = model(*given, **named)[0]
    found.float().square().mean().backward()
    gradients = [p.grad.flatten().float() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found.detach().float(), torch.cat(gradients)


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("side", [8, 32])  # 64 x 64 scores of 64 latents; 1024 x 1024, and 1024 x 77 with the text
def test_a_unet_computes_the_same_and_as_well(side):
    """As near to fp32 as with torch's own way, and the very same numbers in fp32 but for the last digits."""
    noisy, step, text = torch.randn(2, 4, side, side), torch.tensor([3, 700]), torch.randn(2, 77, 24)
    unet = make_unet()
    right = outcome(unet, noisy, step, text)
    unet.set_attn_processor(CpuAttention())
    assert all(error(a, b) < 1e-5 for a, b in zip(outcome(unet, noisy, step, text), right, strict=True))
    ours, theirs = make_unet().to(BF16), make_unet().to(BF16)
    use_fast_attention(ours, CPU, BF16)
    halves = noisy.to(BF16), step, text.to(BF16)
    for a, b, c in zip(outcome(ours, *halves), outcome(theirs, *halves), right, strict=True):
        assert error(a, c) < 1.2 * error(b, c) + 1e-3


def test_a_text_encoder_computes_the_same_and_as_well():
    config = CLIPTextConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    torch.manual_seed(0)
    weights = CLIPTextModel(config).state_dict()

    def made(dtype: torch.dtype) -> CLIPTextModel:
        model = CLIPTextModel(config)
        model.load_state_dict(weights)
        return model.to(dtype)

    ids = torch.randint(0, 40_000, (3, 77))
    right = outcome(made(torch.float32), ids)
    ours, theirs = made(BF16), made(BF16)
    use_fast_attention(ours, CPU, BF16)
    for a, b, c in zip(outcome(ours, ids), outcome(theirs, ids), right, strict=True):
        assert error(a, c) < 1.2 * error(b, c) + 1e-3


def test_many_scores_are_left_to_flash_attention(monkeypatch):
    """Those of 4096 latents with each other would take half a gigabyte a layer."""
    seen = []
    attention = CpuAttention()
    for name in ("_plain", "_flash"):
        monkeypatch.setattr(attention, name, lambda *_, name=name: seen.append(name))
    for latents, keys in ((4096, None), (4096, 77), (1024, None), (724, None), (256, None)):
        attention(None, torch.empty(1, latents, 8), None if keys is None else torch.empty(1, keys, 8))
    assert seen == ["_flash", "_plain", "_flash", "_plain", "_plain"]
    assert 724 * 724 < SHORT < 1024 * 1024


@pytest.mark.parametrize(("device", "dtype"), [("cuda", BF16), ("mps", BF16), ("cpu", torch.float32), ("cpu", torch.float16)])
def test_elsewhere_the_libraries_own_way_stays(device, dtype):
    unet = make_unet()
    before = {name: type(processor) for name, processor in unet.attn_processors.items()}
    use_fast_attention(unet, torch.device(device), dtype)
    assert {name: type(processor) for name, processor in unet.attn_processors.items()} == before
