"""Pictures that the worker draws itself: sample pictures of a run, and class images of its base. diffusers' own pipeline."""

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from .base_model import LATENT_FACTOR, noise_schedule
from .concept import EMPTY, Captions
from .events import Reporter, StopRequest
from .locks import held
from .photos import Dataset, Photo
from .plan import generator
from .rundir import Run, RunDir, partial_file

STEPS, GUIDANCE = 25, 7.0
SAMPLER = f"DPM++ 2M, {STEPS} steps, guidance {GUIDANCE:g}"
CELL = 256
"""Side of a picture in the grid, pixels."""


@dataclass(frozen=True)
class Painter:
    """A U-Net and a VAE that draw. The VAE may stay on the CPU: it comes to the device for as long as it decodes."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    accelerator: Accelerator

    @torch.no_grad()
    def draw(self, states: Tensor, empty: Tensor, resolution: int, seed: tuple, stop: StopRequest) -> Image.Image:
        """One square picture from the text states (77, 768) of a prompt, guided away from those of the empty one.

        Raises Stopped between two of its steps.
        """

        def check(*_) -> dict:
            stop.check()
            return {}

        pipeline = StableDiffusionPipeline(
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
                generator=generator(*seed),  # on the CPU: the same picture on every device
                output_type="latent",
                callback_on_step_end=check,
            ).images
        self.vae.to(latents.device)
        pixels = self.vae.decode(latents.float() / LATENT_FACTOR).sample  # fp32: SD v1.5's VAE overflows in fp16
        self.vae.to("cpu")
        return pipeline.image_processor.postprocess(pixels, output_type="pil")[0]


def save_picture(image: Image.Image, path: Path) -> None:
    with partial_file(path) as partial:
        image.save(partial, "JPEG" if path.suffix == ".jpg" else "PNG")


def make_draw(
    run: Run, run_dir: RunDir, captions: Captions, painter: Painter, reporter: Reporter, stop: StopRequest
) -> Callable[[int], None] | None:
    """What the loop calls to draw a picture of each sample prompt after so many steps; None when there are no prompts.

    The prompts are among the captions.
    """
    settings = run.settings
    if not settings.sample_prompts:
        return None
    indices = [captions.texts.index(prompt) for prompt in settings.sample_prompts]

    def draw(step: int) -> None:
        with painter.accelerator.autocast(), torch.no_grad():
            *states, empty = captions.states([*indices, EMPTY])
        for number, prompt in enumerate(states):
            path = run_dir.samples / f"step-{step:06}-{number}.png"
            if path.is_file():  # drawn before the run was stopped
                continue
            seed = (settings.seed, "sample", number)
            save_picture(painter.draw(prompt, empty, run.dataset.resolution, seed, stop), path)
            reporter.emit("sample", step=step, prompt=number, file=path.name)

    return draw


def save_grid(run_dir: RunDir) -> None:
    """All sample pictures in one: a row a prompt, a column a step, the first being the base."""
    files = sorted(run_dir.samples.glob("step-*-*.png"))
    steps = sorted({int(p.stem.split("-")[1]) for p in files})
    rows = 1 + max(int(p.stem.split("-")[2]) for p in files)
    grid = Image.new("RGB", (CELL * len(steps), 20 + CELL * rows), "white")
    write = ImageDraw.Draw(grid)
    for column, step in enumerate(steps):
        write.text((CELL * column + 6, 4), f"step {step}", fill="black")
    for path in files:
        _, step, row = path.stem.split("-")
        with Image.open(path) as image:
            cell = ImageOps.fit(image.convert("RGB"), (CELL, CELL), Image.Resampling.LANCZOS)
        grid.paste(cell, (CELL * steps.index(int(step)), 20 + CELL * int(row)))
    save_picture(grid, run_dir.grid)


def class_image_folder(root: Path, base_fingerprint: str, prompt: str, resolution: int) -> Path:
    """Where the class images of this base, prompt, size and sampler lie: other ones are never mistaken for them."""
    deciding = json.dumps([base_fingerprint, prompt, resolution, SAMPLER])
    return root / "class-images" / hashlib.sha256(deciding.encode()).hexdigest()[:16]


def make_class_images(
    folder: Path,
    count: int,
    prompt: str,
    dataset: Dataset,
    painter: Callable[[], Painter],
    states: tuple[Tensor, Tensor],
    accelerator: Accelerator,
    reporter: Reporter,
    stop: StopRequest,
) -> Dataset:
    """The first `count` class images of a folder, those that are not there drawn from the base; processes share the work.

    Each picture has a seed of its own, so a longer run of the same base and prompt only draws what is new. Another run that
    wants the same ones waits, and finds them.
    """

    def wait() -> None:
        reporter.phase("waiting for another run that makes the same class images")

    # Of several processes the others would wait for the first at a barrier, for minutes: they do without.
    with held(folder / "lock", wait, stop.check) if accelerator.num_processes == 1 else nullcontext():
        reporter.phase("making class images", count)
        paths = [folder / f"{number:04}.png" for number in range(count)]
        missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
        base = painter() if missing else None
        for done, (number, path) in enumerate(missing[accelerator.process_index :: accelerator.num_processes], 1):
            stop.check()
            save_picture(base.draw(*states, dataset.resolution, ("class image", number), stop), path)
            reporter.step(count - len(missing) + done * accelerator.num_processes, count)
        accelerator.wait_for_everyone()
    photos = tuple(
        Photo(
            path=str(path),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            width=dataset.resolution,
            height=dataset.resolution,
            caption=prompt,
        )
        for path in paths
    )
    return replace(dataset.plain(), photos=photos, crop="center", token="", warnings=())
