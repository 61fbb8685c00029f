"""The pictures that the worker draws: diffusers' own, in fp32 latents whatever is trained, and never of NaN."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from trainer.models.image_sampler import DRAWING_STEPS, GUIDANCE, ImageSampler, NotFiniteError
from trainer.models.sd15 import BaseModel, freeze_as, noise_schedule
from trainer.run.files import read_json
from trainer.run.messages import Message
from trainer.run.resources import CLASS_IMAGES_TOGETHER
from trainer.run.stop_request import StopRequest

from .runs import DREAMBOOTH, open_pipe, work_here

SIZE = 64
CLASS = DREAMBOOTH.replace(
    steps=1, lr_warmup_steps=0, batch_size=1, train="lora", class_images=1, class_prompt="a plush toy", prior_loss_weight=1.0
)


@pytest.fixture(scope="module")
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """The states (77, 768) of a prompt and of the empty one."""
    numbers = torch.Generator().manual_seed(3)
    return torch.randn((77, 768), generator=numbers), torch.randn((77, 768), generator=numbers)


def sampler(base: BaseModel, dtype: torch.dtype = torch.float32) -> ImageSampler:
    unet = base.unet()
    freeze_as(unet, dtype)
    return ImageSampler(unet, base.vae())


def draw(drawing: ImageSampler, texts) -> Image.Image:
    return drawing.draw(*texts, SIZE, torch.Generator().manual_seed(7), StopRequest(open_pipe()))


def test_a_picture_is_that_of_diffusers_own_pipeline(small_base, texts):
    base = BaseModel(small_base)
    pipeline = StableDiffusionPipeline(
        vae=base.vae(),
        text_encoder=None,
        tokenizer=None,
        unet=base.unet(),
        scheduler=DPMSolverMultistepScheduler.from_config(noise_schedule().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    wanted = pipeline(
        prompt_embeds=texts[0][None],
        negative_prompt_embeds=texts[1][None],
        height=SIZE,
        width=SIZE,
        num_inference_steps=DRAWING_STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    drawn = draw(sampler(base), texts)
    assert drawn.size == (SIZE, SIZE)
    assert np.abs(np.asarray(drawn, dtype=int) - np.asarray(wanted, dtype=int)).max() <= 1


def test_pictures_that_are_drawn_together_are_those_that_are_drawn_alone(small_base, texts):
    drawing, stop = sampler(BaseModel(small_base)), StopRequest(open_pipe())

    def numbers(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = [np.asarray(image, dtype=int) for image in drawing.draw_batch(*texts, SIZE, numbers(7, 8, 9), stop)]
    alone = [np.asarray(drawing.draw(*texts, SIZE, *numbers(seed), stop), dtype=int) for seed in (7, 8, 9)]
    assert all(np.abs(one - other).max() <= 1 for one, other in zip(together, alone, strict=True))
    assert np.abs(alone[0] - alone[1]).mean() > 10


@pytest.mark.parametrize("count", [1, 4, 6])
def test_class_images_are_drawn_a_few_at_a_time_and_only_those_that_are_missing(make_run, monkeypatch, count):
    drawn, draw_batch = [], ImageSampler.draw_batch

    def note(drawing, states, empty, resolution, generators, stop):
        drawn.append(len(generators))
        return draw_batch(drawing, states, empty, resolution, generators, stop)

    monkeypatch.setattr("trainer.models.image_sampler.DRAWING_STEPS", 2)
    monkeypatch.setattr("trainer.data.class_images.TOGETHER", {"cpu": CLASS_IMAGES_TOGETHER})
    monkeypatch.setattr(ImageSampler, "draw_batch", note)
    run_dir = make_run(CLASS.replace(class_images=count))
    work_here(run_dir)
    assert sorted(path.name for path in run_dir.path.parent.glob("class-images/*/*.png")) == [f"{n:04}.png" for n in range(count)]
    work_here(make_run(CLASS.replace(class_images=count + 1), "longer"))
    assert drawn == {1: [1, 1], 4: [4, 1], 6: [4, 2, 1]}[count]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_latents_are_fp32_whatever_the_weights_are(small_base, texts, monkeypatch, dtype):
    drawing, seen, step = sampler(BaseModel(small_base), dtype), [], DPMSolverMultistepScheduler.step

    def note(scheduler, guided, timestep, latents):
        seen.append(latents)
        return step(scheduler, guided, timestep, latents)

    monkeypatch.setattr(DPMSolverMultistepScheduler, "step", note)
    draw(drawing, texts)
    assert {latents.dtype for latents in seen} == {torch.float32}
    assert len(seen) == DRAWING_STEPS
    assert {p.dtype for p in drawing.unet.parameters()} == {dtype}
    # Not rounded to bf16 on the way either.
    assert all((latents != latents.bfloat16()).any() for latents in seen[1:])


def overflowing(unet: torch.nn.Module, always: bool) -> None:
    """Let the U-Net give NaN in half precision, as a base does that overflows in fp16, or always, as a broken one."""

    def output(module, _given, result):
        if always or module.dtype != torch.float32:
            result.sample = result.sample * torch.nan
        return result

    unet.register_forward_hook(output)


def test_what_overflows_is_drawn_once_more_in_fp32(small_base, texts):
    base = BaseModel(small_base)
    whole, half = sampler(base), sampler(base, torch.bfloat16)
    weights = [p.detach().clone() for p in half.unet.parameters()]
    overflowing(half.unet, always=False)
    freeze_as(whole.unet, torch.bfloat16)
    freeze_as(whole.unet, torch.float32)
    assert np.array_equal(np.asarray(draw(half, texts)), np.asarray(draw(whole, texts)))
    kept = zip(half.unet.parameters(), weights, strict=True)
    assert all(p.dtype == torch.bfloat16 and torch.equal(p, weight) for p, weight in kept)


@pytest.mark.parametrize("broken", ["unet", "vae"])
def test_a_broken_model_draws_nothing(small_base, texts, broken):
    drawing = sampler(BaseModel(small_base), torch.bfloat16)
    if broken == "unet":
        overflowing(drawing.unet, always=True)
    else:
        next(iter(drawing.vae.decoder.parameters())).data.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="no picture but NaN, in fp32 too"):
        draw(drawing, texts)


def test_no_class_image_of_nan_is_saved_and_the_base_is_named(make_run, monkeypatch):
    run_dir = make_run(CLASS)
    run = replace(run_dir.load_run(), base_checkpoint="broken-model.safetensors")
    run_dir.run_json.write_text(json.dumps(run.to_json()))
    unet = BaseModel.unet

    def broken(self):
        model = unet(self)
        overflowing(model, always=True)
        return model

    with monkeypatch.context() as patched:
        patched.setattr(BaseModel, "unet", broken)
        with pytest.raises(ValueError, match=r"class image .* broken-model\.safetensors: .* NaN, in fp32 too\. It is broken"):
            work_here(run_dir)
    assert not list(run_dir.path.parent.glob("class-images/*/*.png"))
    assert work_here(run_dir)[-1]["event"] == "done"


def test_a_sample_of_nan_is_a_warning_and_no_picture(make_run, monkeypatch):
    run_dir = make_run(DREAMBOOTH.replace(steps=1, lr_warmup_steps=0, train="lora", sample_prompts=("a toy",), sample_every=1))
    monkeypatch.setattr(ImageSampler, "_decode", lambda _self, latents: latents * torch.nan)
    work_here(run_dir)
    assert [str(Message.from_json(warning)) for warning in read_json(run_dir.result_json)["warnings"]] == [
        f"{failure} (the model gives no picture but NaN, in fp32 too)."
        for failure in (
            "The base model standin could not draw the sample pictures",
            "The sample pictures of step 1 could not be drawn",
        )
    ]
    assert not run_dir.samples.exists() or not list(run_dir.samples.iterdir())
