"""Teach the stand-in's U-Net the drawn world: what to do when the world has changed, or to make the weights better.

    python -m demo.world.teach OUT --seconds 4900                        # as weights.safetensors was made, on two cores
    python -m demo.world.teach OUT --seconds 7200 --start demo/world/weights.safetensors --rate 2e-4
    python -m demo.world.teach OUT --seconds 60 --scenes 500 --batch 4   # a minute that shows a falling loss

OUT receives weights.safetensors, and weights.json with its checksum, the settings, a checksum of the scenes and the loss: both
belong into demo/world/. The judge says what they are worth, in tests/training/test_quality.py. The text encoder and the VAE are
the stand-in's own. Latents of 16 x 16 are what training at 128 pixels has; the first quarter of the time goes to 8 x 8, where
words, colours, places and styles are learned as well, at a fifth of the cost.
"""

import argparse
import hashlib
import math
import os
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tools import standin
from tools.setup import comfyui_path
from trainer.models.key_mapping import UNET_PREFIX
from trainer.models.sd15 import LATENT_FACTOR, BaseModel, encode_prompts, load_tokenizer, noise_schedule

from . import weights
from .scenes import COLOURS, PLACES, draw_scene, random_scene

POINTS, PER_JOB, FIRST_SEED = 16, 500, 1000
SMALL_SHARE = 0.25
"""The part of the time in which scenes have half as many points a side."""
NO_COLOUR, NO_PLACE = (0.0, 0.35), (0.3, 0.42)
"""Which captions name neither, by a number drawn from 0 to 1: so one can also ask for "a photo of a dog"."""
NO_PROMPT = 0.1
"""Share of the scenes that are seen without a prompt, for classifier-free guidance (Ho and Salimans 2022)."""
MIN_SNR = 5.0
"""Hang et al. 2023, gamma."""
WARMUP_STEPS = 100
LAST_OF_BLOCKS = (".conv2.", ".proj_out.", "conv_out.")


@dataclass(frozen=True)
class Options:
    """How long and how fast is taught."""

    seconds: float
    scenes: int
    batch: int
    rate: float


@dataclass(frozen=True)
class Lessons:
    """The scenes as a model sees them."""

    latents: Tensor
    """(scenes, 4, 16, 16) fp16"""
    states: Tensor
    """(prompts, 77, 768) bf16; the first is the empty prompt's."""
    prompt: Tensor
    """Which prompt each scene has, (scenes,)."""


def draw_scenes(seed: int, count: int = PER_JOB, points: int = POINTS) -> tuple[np.ndarray, list[str]]:
    """Draw scenes as (count, points, points, 3) uint8, with captions of which some name no colour or no place."""
    r = random.Random(seed)
    pictures, captions = np.empty((count, points, points, 3), np.uint8), []
    for i in range(count):
        scene = random_scene(r)
        pictures[i] = np.asarray(draw_scene(r, scene).resize((points, points), Image.Resampling.BOX))
        caption, left_out = scene.caption, r.random()
        if NO_COLOUR[0] <= left_out < NO_COLOUR[1]:
            for colour in COLOURS:
                caption = caption.replace(f" {colour} ", " ")
        if NO_PLACE[0] < left_out < NO_PLACE[1]:
            for place in PLACES:
                caption = caption.replace(f" {place}", "")
        captions.append(caption)
    return pictures, captions


def checksum(pictures: np.ndarray, captions: list[str]) -> str:
    """Return one of drawn scenes: whoever draws the same world gets the same."""
    return hashlib.sha256(pictures.tobytes() + "\n".join(captions).encode()).hexdigest()


def latents_of(pictures: Tensor) -> Tensor:
    """Return the latents (n, 4, h, w) fp32 of pictures (n, h, w, 3) uint8, a point each: what the stand-in's VAE computes."""
    frame = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    return torch.einsum("oc,bhwc->bohw", frame, pictures.float() / 127.5 - 1) * standin.LATENT_SCALE * LATENT_FACTOR


def prepare(base: BaseModel, drawn: list[tuple[np.ndarray, list[str]]], device: str) -> Lessons:
    """Encode scenes and their captions."""
    captions = [caption for _, some in drawn for caption in some]
    prompts = ["", *sorted(set(captions))]
    text_encoder = base.text_encoder().to(device)
    with torch.autocast(device, torch.bfloat16):
        states = encode_prompts(text_encoder, load_tokenizer(str(comfyui_path() / "comfy" / "sd1_tokenizer")), prompts)
    number = {prompt: i for i, prompt in enumerate(prompts)}
    latents = torch.cat([latents_of(torch.from_numpy(pictures)).half() for pictures, _ in drawn])
    which = torch.tensor([number[caption] for caption in captions])
    return Lessons(latents.to(device), states.bfloat16(), which.to(device))


def begin(unet: nn.Module, table: dict[str, str], start: Path | None) -> None:
    """Give the U-Net the weights of a file, or let each of its blocks begin as nothing added (Ho et al. 2020)."""
    with torch.no_grad():
        if start:
            known = weights.load(standin.unet_shapes(standin.CHANNELS), start, start.with_suffix(".json"))
            unet.load_state_dict({name: known[ldm.removeprefix(UNET_PREFIX)] for name, ldm in table.items()})
            return
        for name, parameter in unet.named_parameters():
            if any(last in name for last in LAST_OF_BLOCKS):
                parameter.zero_()


def loss_of(unet: nn.Module, lessons: Lessons, points: int, count: int, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of `count` scenes under noise, weighted by min-SNR, and the plain one."""
    device = alphas.device
    chosen = torch.randint(0, len(lessons.latents), (count,), device=device)
    latents, prompt = lessons.latents[chosen].float(), lessons.prompt[chosen].clone()
    prompt[torch.rand(count, device=device) < NO_PROMPT] = 0
    if points < latents.shape[2]:
        latents = F.interpolate(latents, (points, points), mode="area")  # the same scene, smaller: the VAE is linear
    timesteps, noise = torch.randint(0, len(alphas), (count,), device=device), torch.randn_like(latents)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    with torch.autocast(device.type, torch.bfloat16):
        noise_pred = unet(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timesteps, lessons.states[prompt]).sample
    losses = F.mse_loss(noise_pred.float(), noise, reduction="none").mean((1, 2, 3))
    snr = alphas[timesteps] / (1 - alphas[timesteps])
    return (losses * snr.clamp(max=MIN_SNR) / snr).mean(), losses.mean().detach()


def teach(unet: nn.Module, lessons: Lessons, options: Options) -> tuple[list[Tensor], list[float]]:
    """Train for so many seconds, at a rate that falls as a cosine; the averaged weights, and the loss of each step."""
    alphas = noise_schedule().alphas_cumprod.to(lessons.latents.device)
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average, losses = [p.detach().clone() for p in parameters], []
    began, told = time.monotonic(), 0.0
    while (elapsed := time.monotonic() - began) < options.seconds:
        progress, step = elapsed / options.seconds, len(losses) + 1
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, step / WARMUP_STEPS) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        small = progress < SMALL_SHARE
        points, count = (POINTS // 2, 2 * options.batch) if small else (POINTS, options.batch)
        weighted, plain = loss_of(unet, lessons, points, count, alphas)
        weighted.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(plain.item())
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(0.999, 1 - 1 / (step / 10 + 1)))
        if elapsed - told > 20:
            told = elapsed
            print(f"{elapsed:5.0f} s, step {step}, {points} points, loss {np.mean(losses[-20:]):.4f}", flush=True)
    return average, losses


def curve(losses: list[float], parts: int = 20) -> list[tuple[int, float]]:
    """Return the mean loss of each of so many parts of the run, with its last step."""
    ends = sorted({round(len(losses) * (i + 1) / parts) for i in range(parts)} - {0})
    return [(end, round(float(np.mean(losses[begin:end])), 4)) for begin, end in zip([0, *ends], ends, strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach the stand-in's U-Net the drawn world.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="weights to go on from, with their .json beside them")
    parser.add_argument("--seconds", type=float, default=4900, help="of the training alone")
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-4)
    args = parser.parse_args()
    options = Options(args.seconds, args.scenes, args.batch, args.rate)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with ProcessPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory() as folder:
        jobs = pool.map(draw_scenes, range(FIRST_SEED, FIRST_SEED + math.ceil(options.scenes / PER_JOB)))
        base_file = Path(folder) / "standin.safetensors"
        standin.build(base_file, taught=False)
        base, drawn = BaseModel(base_file), list(jobs)
        unet, lessons = base.unet().requires_grad_(True).train().to(device), prepare(base, drawn, device)
    first = checksum(*drawn[0])
    print(f"{len(lessons.latents)} scenes, {len(lessons.states)} prompts, checksum of the first {len(drawn[0][1])}: {first}")
    begin(unet, base.unet_table, args.start)
    average, losses = teach(unet, lessons, options)
    named = dict(zip((name for name, _ in unet.named_parameters()), average, strict=True))
    ldm = {base.unet_table[name].removeprefix(UNET_PREFIX): value.cpu() for name, value in named.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"first_scenes": first, "device": device, "torch": torch.__version__, **asdict(options), "loss": curve(losses)}
    weights.save(ldm, args.out / weights.FILE.name, args.out / weights.FACTS.name, report)
    print(f"{len(losses)} steps, loss {report['loss'][0][1]} -> {report['loss'][-1][1]}; {args.out / weights.FILE.name}")


if __name__ == "__main__":
    main()
