"""How the worker draws a picture itself: diffusers' own pipeline and sampler."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ..run.files import partial_file
from ..run.stop_request import StopRequest
from .sd15 import LATENT_FACTOR, move, noise_schedule

STEPS, GUIDANCE = 25, 7.0
Pipeline: Any = StableDiffusionPipeline  # its types know of no pipeline that lacks a part
SAMPLER = f"DPM++ 2M, {STEPS} steps, guidance {GUIDANCE:g}"


@dataclass(frozen=True)
class ImageSampler:
    """A U-Net and a VAE that draw. The VAE may stay on the CPU: it comes to the device for as long as it decodes."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    accelerator: Accelerator

    @torch.no_grad()
    def draw(self, states: Tensor, empty: Tensor, resolution: int, generator: torch.Generator, stop: StopRequest) -> Image.Image:
        """Return one square picture from the text states (77, 768) of a prompt, guided away from those of the empty one.

        `generator` is the CPU's, so that every device draws the same picture. Raises StoppedError between two of its steps.
        """

        def check(*_: object) -> dict:
            stop.check()
            return {}

        pipeline = Pipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=self.unet,
            scheduler=DPMSolverMultistepScheduler.from_config(noise_schedule().config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        with self.accelerator.autocast():
            latents = pipeline(
                prompt_embeds=states[None],
                negative_prompt_embeds=empty[None],
                height=resolution,
                width=resolution,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=generator,
                output_type="latent",
                callback_on_step_end=check,
            ).images
        move(self.vae, latents.device)
        decoded: Any = self.vae.decode(latents.float() / LATENT_FACTOR)  # fp32: SD v1.5's VAE overflows in fp16
        move(self.vae, "cpu")
        return pipeline.image_processor.postprocess(decoded.sample, output_type="pil")[0]


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture as JPEG or PNG, by its suffix, whole or not at all."""
    with partial_file(path) as partial:
        image.save(partial, "JPEG" if path.suffix == ".jpg" else "PNG")
