"""The constants of the memory estimate against the tensors of a step of SD v1.5's U-Net, counted on torch's meta device.

Nothing is computed there, and nothing takes memory: a tensor only has a size. The constants of activations were met by a card
under autocast, which keeps norms in fp32: what is counted is less than they say, and must not become more.
"""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional as F

from trainer.models import key_mapping
from trainer.models.sd15 import DTYPES
from trainer.parts import adapters, frozen_unet, lora, unet
from trainer.parts.memory import SD15_UNET_WEIGHTS
from trainer.run import resources
from trainer.run.resources import GB
from trainer.training import master_weights
from trainer.training.master_weights import MasterWeights

from .test_tensor_file import LiveBytes

ATTENTION = ("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3
SD15 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*ATTENTION[0], "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *ATTENTION[1]),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


def make_unet(part: str, precision: str) -> UNet2DConditionModel:
    """Return SD v1.5's U-Net on the meta device, as the part of this name trains it."""
    with torch.device("meta"):
        model = UNet2DConditionModel(**SD15).train()
        assert sum(p.numel() for p in model.parameters()) == SD15_UNET_WEIGHTS
        model.requires_grad_(part == "unet")
        if part in adapters.TARGETS:
            from peft import LoraConfig, inject_adapter_in_model

            inject_adapter_in_model(LoraConfig(r=16, lora_alpha=16, target_modules=adapters.TARGETS[part]), model)
    for p in model.parameters():
        p.data = p.data.to(DTYPES[precision])
    return model


def attention(query, key, value, **_) -> torch.Tensor:
    """Do as CUDA's kernels, which keep no scores."""
    if query.dtype == torch.bfloat16:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, query.requires_grad)[0]


@pytest.fixture(autouse=True)
def cuda_attention(monkeypatch):
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)


def counted(
    part: str, samples: int, precision: str = "bf16", checkpointing: bool = False, moves_gradients: bool = False
) -> dict[str, float]:
    """Return the bytes of a step beside those of the weights: when the forward pass is done, and at the peak of the backward."""
    model, dtype = make_unet(part, precision), DTYPES[precision]
    if checkpointing:
        model.enable_gradient_checkpointing()
    params = dict(model.named_parameters())
    weights = MasterWeights([params], dtype, splits=True, moves_gradients=True) if moves_gradients else None
    live = LiveBytes()
    live.known = {p.untyped_storage()._cdata: 0 for p in model.parameters()}
    with live:
        noisy = torch.randn(samples, 4, 64, 64, device="meta")
        states = torch.randn(samples, 77, 768, device="meta", requires_grad=part == "frozen")
        predicted = model(noisy.to(dtype), torch.zeros(samples, device="meta"), states.to(dtype)).sample
        loss = F.mse_loss(predicted.float(), noisy)
        del predicted
        forward, live.peak = live.now, live.now
        loss.backward()
        if weights:
            assert sum(gradient is not None for gradient in weights.take_gradients()) == len(weights.buffers)
    return {"forward": forward, "backward": live.peak}


def of_a_sample(part: str, **how) -> dict[str, float]:
    """Return the bytes that one more sample takes."""
    few, many = counted(part, 2, **how), counted(part, 4, **how)
    return {when: (many[when] - few[when]) / 2 for when in few}


@pytest.mark.parametrize(
    ("part", "figure"), [("unet", unet.ACTIVATIONS), ("frozen", frozen_unet.ACTIVATIONS), *lora.ACTIVATIONS.items()]
)
def test_the_activations_of_a_sample_are_not_more_than_is_said(part, figure):
    bf16 = of_a_sample(part)["forward"]
    print(f"\n{part}: {bf16 / GB:.3f} GB of {figure / GB:.3f}")
    assert 0.6 * figure < bf16 < figure
    if part == "unet":
        assert 0.8 * resources.FP32 * figure < of_a_sample(part, precision="fp32")["forward"] < resources.FP32 * figure


def test_checkpointing_leaves_less_than_is_said():
    trained, frozen = (of_a_sample(part, checkpointing=True) for part in ("unet", "attention"))
    print(f"\ntrained {trained}, frozen {frozen}")
    assert frozen["backward"] < resources.CHECKPOINTED
    assert trained["backward"] < resources.LAST_BLOCK


def test_gradients_that_are_moved_away_are_those_of_few_buffers(monkeypatch):
    """What is moved takes no memory here: nothing can be copied from the meta device."""
    monkeypatch.setattr(master_weights, "move", lambda tensor, device: tensor.new_empty(0))
    for samples in (1, 2):
        found = counted("unet", samples, checkpointing=True, moves_gradients=True)["backward"]
        said = max(samples * resources.CHECKPOINTED, 2 * resources.BUFFERS + samples * resources.LAST_BLOCK)
        print(f"\n{samples}: {found / GB:.3f} GB of {said / GB:.3f}")
        assert 0.6 * said < found < said


@pytest.mark.parametrize(("batches", "expected"), [(1, 2), (2, 4), (3, 6)])
def test_gradients_of_several_batches_take_what_is_counted(batches, expected):
    """In bytes a weight, when the last backward pass is nearly done: as trainer/run/resources.py says."""
    params = dict(make_unet("unet", "bf16").named_parameters())
    weights = MasterWeights([params], torch.bfloat16)
    live = LiveBytes()
    live.known = {p.untyped_storage()._cdata: 0 for p in params.values()}
    with live, torch.no_grad():
        for batch in range(batches):
            for p in params.values():
                p.grad = torch.zeros(p.shape, dtype=torch.bfloat16, device="meta")
            if batch == batches - 1:
                break
            weights.gather_gradients()
        assert live.now / SD15_UNET_WEIGHTS == pytest.approx(expected, rel=0.02)


def test_a_step_on_split_weights_takes_a_few_times_a_buffer():
    params = dict(make_unet("unet", "bf16").named_parameters())
    weights = MasterWeights([params], torch.bfloat16, splits=True)
    optimizer = torch.optim.SGD(weights.masters, lr=0.1)
    for p in params.values():
        p.grad = torch.empty_like(p)
    weights.gather_gradients()
    live = LiveBytes()
    live.known = {tensor.untyped_storage()._cdata: 0 for tensor in (*weights._gradients, *(b.work for b in weights.buffers))}
    with live, torch.no_grad():
        for buffer, gradient in zip(weights.buffers, weights.take_gradients(), strict=True):
            with buffer.whole() as master:
                master.grad = gradient.float()
                optimizer.step()
                master.grad = None
    print(f"\n{live.peak / GB:.3f} GB of {resources.SPLIT_STEP / GB:.3f}")
    assert 0.6 * resources.SPLIT_STEP < live.peak <= resources.SPLIT_STEP


def test_no_more_than_half_of_the_activations_are_left_when_nearly_all_gradients_are_there():
    """With one sample gradients decide, with two both are alike; then activations do."""
    for samples in (1, 2):
        activations = samples * unet.ACTIVATIONS
        said = max(activations, 2 * SD15_UNET_WEIGHTS + resources.HALFWAY * activations)
        assert 0.7 * said < counted("unet", samples)["backward"] < 1.03 * said


def test_a_forward_pass_alone_takes_little():
    model = make_unet("frozen", "bf16")
    peaks = []
    for samples in (2, 4):
        live = LiveBytes()
        live.known = {p.untyped_storage()._cdata: 0 for p in model.parameters()}
        with live, torch.no_grad():
            sizes = (samples, 4, 64, 64), (samples,), (samples, 77, 768)
            model(*(torch.zeros(size, device="meta", dtype=torch.bfloat16) for size in sizes))
        peaks.append(live.peak)
    print(f"\n{peaks}")
    assert 0.6 * resources.FORWARD < peaks[1] / 4 < resources.FORWARD
    assert 0.6 * resources.FORWARD < peaks[0] / 2 < resources.FORWARD


def test_the_vae_takes_what_is_counted():
    with torch.device("meta"):
        vae = AutoencoderKL(**key_mapping.vae_config({})).requires_grad_(False).eval()
    assert 4 * sum(p.numel() for p in vae.parameters()) == pytest.approx(resources.VAE, rel=0.02)
    for work, shape, figure in ((vae.encode, (1, 3, 512, 512), resources.ENCODE), (vae.decode, (1, 4, 64, 64), resources.DECODE)):
        live = LiveBytes()
        live.known = {p.untyped_storage()._cdata: 0 for p in vae.parameters()}
        with live, torch.no_grad():
            work(torch.zeros(shape, device="meta"))
        assert live.peak == pytest.approx(figure, rel=0.02)


def test_adafactors_state_is_not_small_for_convolutions():
    from transformers.optimization import Adafactor

    shapes = [p.shape for p in make_unet("unet", "fp32").parameters()]
    numbers = sum(s.numel() // s[-1] + s.numel() // s[-2] if len(s) > 1 else s.numel() for s in shapes)
    assert 4 * numbers / SD15_UNET_WEIGHTS == pytest.approx(resources.OPTIMIZER_BYTES["adafactor"], abs=0.005)
    weight = torch.nn.Parameter(torch.ones(6, 5, 3, 3))
    weight.grad = torch.ones_like(weight)
    optimizer = Adafactor([weight], lr=1e-3, scale_parameter=False, relative_step=False, warmup_init=False)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if torch.is_tensor(value) and value.ndim]
    assert sum(value.numel() for value in kept) == weight.numel() // 3 * 2
