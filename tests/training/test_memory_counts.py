"""The constants of the memory estimate against the tensors of a step of SD v1.5's U-Net, counted on torch's meta device.

Nothing is computed there, and nothing takes memory: a tensor only has a size. CUDA's autocast is played by hand, because the meta
device has none: products in bf16, norms in fp32, the copies of trained weights kept until the forward pass ends.
"""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainer.models import image_sampler, key_mapping
from trainer.parts import adapters, frozen_unet, lora, unet
from trainer.parts.memory import SD15_UNET, TEXT_ENCODER, TEXT_ENCODER_TABLE
from trainer.run import resources
from trainer.run.resources import GB

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


class Autocast:
    """CUDA's autocast to bf16, for what the U-Net calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.on, self._copies = False, {}
        for name, cast in {"linear": self.half, "conv2d": self.half, "group_norm": self.full, "layer_norm": self.full}.items():
            monkeypatch.setattr(F, name, self._casting(getattr(F, name), cast))
        monkeypatch.setattr(F, "scaled_dot_product_attention", self._attention)

    def _casting(self, function, cast):
        def call(*args, **kwargs):
            given = [cast(value) if torch.is_tensor(value) else value for value in args]
            return function(*given, **{k: cast(v) if torch.is_tensor(v) else v for k, v in kwargs.items()})

        return call

    def half(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self.on or tensor.dtype != torch.float32:
            return tensor
        if not (tensor.is_leaf and tensor.requires_grad):
            return tensor.to(torch.bfloat16)
        return self._copies.setdefault(id(tensor), tensor.to(torch.bfloat16))

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() if self.on else tensor

    def _attention(self, query, key, value, **_) -> torch.Tensor:
        query, key, value = map(self.half, (query, key, value))
        if query.dtype == torch.bfloat16:
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, query.requires_grad)[0]

    @contextlib.contextmanager
    def __call__(self, on: bool = True) -> Iterator[None]:
        before, self.on = self.on, on
        try:
            yield
        finally:
            self.on = before
            if not before:
                self._copies.clear()


@pytest.fixture
def autocast(monkeypatch):
    return Autocast(monkeypatch)


def make_unet(part: str, precision: str) -> UNet2DConditionModel:
    """Return SD v1.5's U-Net on the meta device, as the part of this name trains it."""
    with torch.device("meta"):
        model = UNet2DConditionModel(**SD15).train()
    assert sum(p.numel() for p in model.parameters()) == SD15_UNET
    if part == "unet":
        return model
    for p in model.requires_grad_(False).parameters():
        p.data = p.data.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    if part in adapters.TARGETS:
        from peft import LoraConfig, inject_adapter_in_model

        with torch.device("meta"):
            inject_adapter_in_model(LoraConfig(r=16, lora_alpha=16, target_modules=adapters.TARGETS[part]), model)
        for p in model.parameters():
            p.data = p.data.float() if p.requires_grad else p.data
    return model


def counted(
    part: str, samples: int, autocast: Autocast, precision: str = "bf16", checkpointing: bool = False
) -> dict[str, float]:
    """Return the bytes of a step beside those of the weights: when the forward pass is done, and at the peak of the backward."""
    model, half = make_unet(part, precision), precision == "bf16"
    if checkpointing:

        def again(module, *args):
            def run(*given):
                with autocast(half):  # a context of its own in the backward pass
                    return module(*given)

            return checkpoint(run, *args, use_reentrant=False)

        model.enable_gradient_checkpointing(again)
    live = LiveBytes()
    live.known = {p.untyped_storage()._cdata: 0 for p in model.parameters()}
    with live:
        noisy = torch.randn(samples, 4, 64, 64, device="meta")
        states = torch.randn(samples, 77, 768, device="meta", requires_grad=part == "frozen")
        with autocast(half):
            predicted = model(noisy, torch.zeros(samples, device="meta"), states).sample
            loss = F.mse_loss(predicted.float(), noisy)
        del predicted
        forward, live.peak = live.now, live.now
        loss.backward()
    return {"forward": forward, "backward": live.peak}


def of_a_sample(part: str, autocast: Autocast, **how) -> dict[str, float]:
    """Return the bytes that one more sample takes."""
    few, many = counted(part, 2, autocast, **how), counted(part, 4, autocast, **how)
    return {when: (many[when] - few[when]) / 2 for when in few}


@pytest.mark.parametrize(
    ("part", "figure"), [("unet", unet.ACTIVATIONS), ("frozen", frozen_unet.ACTIVATIONS), *lora.ACTIVATIONS.items()]
)
def test_the_activations_of_a_sample_are_those_that_autograd_keeps(autocast, part, figure):
    bf16 = of_a_sample(part, autocast)["forward"]
    assert bf16 == pytest.approx(figure, rel=0.02)
    if part == "unet":  # of the parts it has the most to keep in fp32
        assert 1.4 * bf16 < of_a_sample(part, autocast, precision="fp32")["forward"] < resources.FP32 * bf16


def test_checkpointing_leaves_what_is_counted_and_a_fifth_for_what_is_reserved(autocast):
    trained, frozen = (of_a_sample(part, autocast, checkpointing=True) for part in ("unet", "attention"))
    assert frozen["backward"] * 1.25 > resources.CHECKPOINTED > frozen["backward"]
    assert trained["backward"] * 1.25 > resources.LAST_BLOCK > trained["backward"]


def test_half_of_the_activations_are_left_when_nearly_all_gradients_are_there(autocast):
    """With one sample gradients decide, with two both are alike; then activations do."""
    for samples in (1, 2):
        activations = samples * unet.ACTIVATIONS
        wanted = max(2 * SD15_UNET + activations, 4 * SD15_UNET + resources.HALFWAY * activations)
        assert 0.97 * wanted - 0.5 * GB < counted("unet", samples, autocast)["backward"] < 1.03 * wanted


def test_a_forward_pass_alone_takes_little(autocast):
    model = make_unet("frozen", "bf16")
    peaks = []
    for samples in (2, 4):
        live = LiveBytes()
        live.known = {p.untyped_storage()._cdata: 0 for p in model.parameters()}
        with live, torch.no_grad(), autocast():
            model(*(torch.zeros(size, device="meta") for size in ((samples, 4, 64, 64), (samples,), (samples, 77, 768))))
        peaks.append(live.peak)
    assert peaks[1] / 4 == pytest.approx(resources.FORWARD, rel=0.05)
    assert peaks[0] / 2 == pytest.approx(resources.FORWARD, rel=0.05)


def test_the_vae_takes_what_is_counted(autocast):
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
    assert 4 * numbers / SD15_UNET == pytest.approx(resources.OPTIMIZER_BYTES["adafactor"], abs=0.005)
    weight = torch.nn.Parameter(torch.ones(6, 5, 3, 3))
    weight.grad = torch.ones_like(weight)
    optimizer = Adafactor([weight], lr=1e-3, scale_parameter=False, relative_step=False, warmup_init=False)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if torch.is_tensor(value) and value.ndim]
    assert sum(value.numel() for value in kept) == weight.numel() // 3 * 2


def test_the_sampler_takes_the_steps_that_are_counted():
    assert resources.DRAWING_STEPS == image_sampler.STEPS


def test_the_text_encoders_copies_are_those_of_its_layers():
    assert pytest.approx(12 * (4 * 768**2 + 2 * 768 * 3072), rel=0.01) == TEXT_ENCODER - TEXT_ENCODER_TABLE
