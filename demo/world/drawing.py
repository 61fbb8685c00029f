"""Draw with a model of SD v1.5's format, several prompts at once: what tests and the teacher look at. ComfyUI is not needed."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor, nn

from trainer.models.sd15 import LATENT_FACTOR, BaseModel, encode_prompts, load_tokenizer, noise_schedule

STEPS, GUIDANCE, PIXELS = 25, 3.0, 128
"""Guidance 3 suits the taught U-Net; at SD v1.5's 7 its colours burn out."""


@torch.no_grad()
def sample_latents(unet: nn.Module, states: Tensor, empty: Tensor, seed: int) -> Tensor:
    """Return latents (P, 4, 16, 16) for text states (P, 77, 768) by DDIM, each from the noise of the same seed."""
    scheduler = DDIMScheduler.from_config(noise_schedule().config, clip_sample=False)
    scheduler.set_timesteps(STEPS)
    side = PIXELS // 8
    noise = torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(seed)).to(states.device)
    latents, texts = noise.repeat(len(states), 1, 1, 1), torch.cat([empty.expand_as(states), states])
    for timestep in scheduler.timesteps:
        unguided, wanted = unet(torch.cat([latents, latents]), timestep, texts).sample.float().chunk(2)
        latents = scheduler.step(unguided + GUIDANCE * (wanted - unguided), timestep, latents).prev_sample
    return latents


@torch.no_grad()
def decode(vae: nn.Module, latents: Tensor) -> list[Image.Image]:
    """Return the pictures, 128 x 128, of latents (P, 4, 16, 16)."""
    pixels = torch.cat([vae.decode(one / LATENT_FACTOR).sample for one in latents.split(1)])
    numbers = pixels.div(2).add(0.5).clamp(0, 1).mul(255).round().byte()
    return [Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()) for picture in numbers]


def draw(checkpoint: Path, prompts: list[str], tokenizer: Path, seed: int = 1) -> list[Image.Image]:
    """Return a picture of each prompt, 128 x 128, by the model in a checkpoint file."""
    base = BaseModel(checkpoint)
    states = encode_prompts(base.text_encoder(), load_tokenizer(str(tokenizer)), ["", *prompts])
    return decode(base.vae(), sample_latents(base.unet(), states[1:], states[:1], seed))
