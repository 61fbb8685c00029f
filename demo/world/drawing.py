"""Draw with a model of SD v1.5's format, several prompts at once: what tests and the teacher look at. ComfyUI is not needed."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from tools.setup import comfyui_path
from trainer.models.sd15 import LATENT_FACTOR, BaseModel, encode_prompts, load_tokenizer, noise_schedule
from trainer.models.token_embedding import embedding_table, load_vectors, new_ids, tokenize_with, train_rows

from .subject import TOKEN

STEPS, GUIDANCE, PIXELS = 20, 3.0, 128
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


@torch.no_grad()
def merge_lora(unet: nn.Module, file: Path) -> None:
    """Add a LoRA file, of kohya's names, to the U-Net's weights."""
    tensors = load_file(file)
    layers = {"lora_unet_" + name.replace(".", "_"): module for name, module in unet.named_modules()}
    for name in {key.split(".")[0] for key in tensors}:
        up, down = (tensors[f"{name}.lora_{part}.weight"].float().flatten(1) for part in ("up", "down"))
        weight = layers[name].weight
        weight += (tensors[f"{name}.alpha"] / len(down) * up @ down).view_as(weight)


@torch.no_grad()
def encode(base: BaseModel, prompts: list[str], embedding: Path | None = None) -> Tensor:
    """Return the text states (P, 77, 768) of prompts; with an embedding, the token means its vectors."""
    text_encoder, tokenizer = base.text_encoder(), load_tokenizer(str(comfyui_path() / "comfy" / "sd1_tokenizer"))
    if not embedding:
        return encode_prompts(text_encoder, tokenizer, prompts)
    vectors = load_vectors(embedding)
    ids = new_ids(embedding_table(text_encoder), len(vectors))
    train_rows(text_encoder, ids, vectors)
    return text_encoder(tokenize_with(tokenizer, prompts, TOKEN, ids)).last_hidden_state


def draw(
    checkpoint: Path, prompts: list[str], seed: int = 1, lora: Path | None = None, embedding: Path | None = None
) -> list[Image.Image]:
    """Return a picture of each prompt, 128 x 128, by the model in a checkpoint file and what was trained beside it."""
    base = BaseModel(checkpoint)
    unet, states = base.unet(), encode(base, ["", *prompts], embedding)
    if lora:
        merge_lora(unet, lora)
    return decode(base.vae(), sample_latents(unet, states[1:], states[:1], seed))
