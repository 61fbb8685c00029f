"""Prior preservation by a teacher: the frozen model's own prediction under the class prompt, in place of class images."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer.data.concepts import Batch
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer
from trainer.parts.adapters import adapters_off
from trainer.parts.lora import add_lora
from trainer.run.metrics_file import read_metrics
from trainer.training.loss import DiffusionLoss

from .published import published_loss
from .runs import DREAMBOOTH, TOKENIZER, work_here

CLASS_PROMPT = "a photo of a plush toy"
TAUGHT = DREAMBOOTH.replace(
    steps=2, batch_size=2, lr_scheduler="constant", lr_warmup_steps=0, learning_rate=1e-2, keep_state=True,
    prior="teacher", class_prompt=CLASS_PROMPT, prior_loss_weight=0.5, hold_out=1, validate_every=1,
)  # fmt: skip


@pytest.mark.parametrize("train", ["unet", "lora", "lora_and_text_encoder"])
def test_the_loss_is_that_of_the_photos_and_half_of_the_distance_to_the_base(make_run, small_base, dataset, train):
    """In the second step: in the first one there is none. The trained weights of the first are read from its saved state."""
    settings = TAUGHT.replace(train=train, hold_out=0, validate_every=0)
    one, two = make_run(settings.replace(steps=1), "one"), make_run(settings, "two")
    alone = make_run(settings.replace(steps=1, prior="class_images", class_prompt=""), "alone")
    for run_dir in (one, two, alone):
        work_here(run_dir)
    assert two.losses()[0] == one.losses()[0] == pytest.approx(alone.losses()[0], rel=1e-5)
    state = {name.removeprefix("param/"): t for name, t in load_file(one.state).items() if name.startswith("param/")}
    if train == "lora_and_text_encoder":  # the text embeddings of the teacher are the base's, which is what is computed first
        assert two.losses()[1] != alone.losses()[0]
        return
    base = BaseModel(small_base)
    unet = base.unet()
    teacher = copy.deepcopy(unet)
    params = add_lora(unet, settings) if train == "lora" else dict(unet.named_parameters())
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(state[name])
        tokenizer, text_encoder = load_tokenizer(str(TOKENIZER)), base.text_encoder()
        states = encode_prompts(text_encoder, tokenizer, [CLASS_PROMPT])
        instance = published_loss(base, unet, dataset, "instance", 2, batch=1)
        kept = published_loss(base, unet, dataset, "instance", 2, batch=1, encode=lambda _: states, teacher=teacher)
    assert float(kept) > 1e-3 * float(instance)
    assert two.losses()[1] == pytest.approx(float(instance + 0.5 * kept), rel=1e-4)
    assert read_metrics(two.metrics)[1]["instance_loss"] == pytest.approx(float(instance), rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("train", ["unet", "lora"])
def test_the_teacher_has_no_gradient_nor_state_and_the_class_curve_begins_at_nothing(make_run, train, precision):
    run_dir = make_run(TAUGHT.replace(train=train, precision=precision))
    work_here(run_dir)
    curve = [entry["class"] for entry in run_dir.measurements()]
    assert curve[0] == 0 < min(curve[1:])
    state = load_file(run_dir.state)
    names = [name for name in state if name.startswith("param/")]
    trained = load_file(run_dir.load_run().export_path)
    assert len(names) == sum(("lora_" in n and "alpha" not in n) or "diffusion_model" in n for n in trained)
    moments = sum(tensor.numel() for name, tensor in state.items() if name.endswith(("/exp_avg", "/exp_avg_sq")))
    assert moments == 2 * sum(state[name].numel() for name in names)


def test_without_its_adapters_a_model_is_the_base_and_then_has_them_again(small_base):
    unet, base = BaseModel(small_base).unet(), BaseModel(small_base).unet()
    given = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 768)
    params = add_lora(unet, TAUGHT.replace(train="lora"))
    with torch.no_grad():
        for p in params.values():
            p.add_(0.05)
        with adapters_off(unet):
            assert torch.equal(unet(*given).sample, base(*given).sample)
    changed = unet(*given).sample
    assert not torch.allclose(changed, base(*given).sample, atol=1e-3)
    changed.sum().backward()
    assert all(p.grad is not None for p in params.values())


def test_what_is_trained_stays_nearer_to_the_base_under_the_class_prompt(make_run):
    """With the weight of a class, in place of next to none. The photos are learned all the same."""
    far = []
    for weight in (1e-6, 1.0):
        settings = TAUGHT.replace(train="lora", steps=30, learning_rate=1e-3, validate_every=30, prior_loss_weight=weight)
        run_dir = make_run(settings, f"weight-{weight}")
        work_here(run_dir)
        first, last = run_dir.measurements()
        far.append(last["class"])
        assert last["trained"] < first["trained"]
    print(f"\ndistance to the base under the class prompt: {far[0]:.4f} without, {far[1]:.4f} with the teacher")
    assert far[1] < 0.6 * far[0]


def test_a_mask_of_the_subject_does_not_weigh_what_the_teacher_says():
    latents = torch.ones(1, 4, 8, 8)
    batch = Batch(noisy=latents, timesteps=torch.tensor([5]), noise=latents, captions=[0], mask_weights=latents / 2)
    captions = SimpleNamespace(texts=("", CLASS_PROMPT), frozen_states=lambda captions: torch.zeros(1, 77, 768))
    loss: Any = SimpleNamespace(
        teacher=lambda *_: 3 * latents, captions=captions, dtype=torch.float32, context=SimpleNamespace(settings=TAUGHT)
    )
    taught = DiffusionLoss.taught(loss, batch)
    assert taught.mask_weights is None
    assert taught.captions == [1]
    assert torch.equal(taught.noise, 3 * latents)
