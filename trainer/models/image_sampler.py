"""How the worker draws a picture itself, with diffusers' sampler."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ..run.files import partial_file
from ..run.messages import MessageError
from ..run.resources import DRAWING_STEPS
from ..run.stop_request import StopRequest
from .sd15 import LATENT_FACTOR, move, noise_schedule

GUIDANCE = 7.0
SAMPLER = f"DPM++ 2M, {DRAWING_STEPS} steps, guidance {GUIDANCE:g}, fp32 latents"


class NotFiniteError(MessageError):
    """A picture is NaN or infinite, also when it is drawn in fp32: the weights are broken."""


@dataclass(frozen=True)
class ImageSampler:
    """A U-Net and a VAE that draw. The VAE may stay on the CPU: it comes to the device for as long as it decodes."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL

    def draw(self, states: Tensor, empty: Tensor, resolution: int, generator: torch.Generator, stop: StopRequest) -> Image.Image:
        """Return one square picture, as `draw_batch` does."""
        return self.draw_batch(states, empty, resolution, [generator], stop)[0]

    @torch.no_grad()
    def draw_batch(
        self, states: Tensor, empty: Tensor, resolution: int, generators: Sequence[torch.Generator], stop: StopRequest
    ) -> list[Image.Image]:
        """Return square pictures, one for each generator, from text embeddings (77, 768), guided away from those of no text.

        The generators are the CPU's, so that every device draws the same pictures. What overflows in half precision is drawn once
        more in fp32. Raises NotFiniteError when that gives no picture either, and StoppedError between two steps.
        """
        side, count = resolution // 8, len(generators)
        noise = torch.cat([torch.randn((1, 4, side, side), generator=generator) for generator in generators]).to(states.device)
        texts = torch.stack((empty, states)).repeat_interleave(count, dim=0)
        latents = self._sample(self.unet, noise, texts, stop)
        if not latents.isfinite().all():
            latents = self._sample(copy.deepcopy(self.unet).float(), noise, texts, stop)
        pixels = self._decode(latents)
        if not pixels.isfinite().all():
            raise NotFiniteError("the model gives no picture but NaN, in fp32 too")
        numbers = pixels.div(2).add(0.5).clamp(0, 1).mul(255).round().byte()
        return [Image.fromarray(picture) for picture in numbers.permute(0, 2, 3, 1).cpu().numpy()]

    def _sample(self, unet: UNet2DConditionModel, noise: Tensor, texts: Tensor, stop: StopRequest) -> Tensor:
        """Return latents (B, 4, h, w) fp32 from fp32 noise and the states (2 x B, 77, 768) of the empty and the wanted prompts.

        The U-Net alone works in its own type: the latents are fp32 throughout.
        """
        dtype = unet.dtype
        sampler: Any = DPMSolverMultistepScheduler.from_config(noise_schedule().config)
        sampler.set_timesteps(DRAWING_STEPS, device=noise.device)
        latents = noise * sampler.init_noise_sigma
        for timestep in sampler.timesteps:
            stop.check()
            unguided, wanted = unet(latents.repeat(2, 1, 1, 1).to(dtype), timestep, texts.to(dtype)).sample.float().chunk(2)
            # Classifier-free guidance (Ho and Salimans 2022), in the form that SD v1.5's programs use.
            guided = unguided + GUIDANCE * (wanted - unguided)
            latents = sampler.step(guided, timestep, latents).prev_sample
        return latents

    def _decode(self, latents: Tensor) -> Tensor:
        """Return pixels (B, 3, H, W) about in [-1, 1]; in fp32, because SD v1.5's VAE overflows in fp16.

        One after the other: a picture takes more memory here than several in the U-Net.
        """
        move(self.vae, latents.device)
        try:
            vae: Any = self.vae  # diffusers asks for FloatTensor, which no operation gives
            pixels = [vae.decode(one / LATENT_FACTOR).sample for one in latents.split(1)]
        finally:
            move(self.vae, "cpu")
        return torch.cat(pixels)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture as JPEG or PNG, by its suffix, whole or not at all."""
    with partial_file(path) as partial:
        image.save(partial, "JPEG" if path.suffix == ".jpg" else "PNG")
