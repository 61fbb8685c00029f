"""Class images for prior preservation (Ruiz et al. 2022), drawn from the base model and kept for later runs."""

import hashlib
import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from transformers import CLIPTextModel, CLIPTokenizer

from ..context import Context
from ..dataset.photos import Dataset, Photo
from ..models.cpu_attention import use_fast_attention
from ..models.image_sampler import SAMPLER, ImageSampler, NotFiniteError, save_image
from ..models.sd15 import DTYPES, BaseModel, encode_prompts, freeze_as, move
from ..run.events import CLASS_IMAGES, WAITING_FOR_CLASS_IMAGES
from ..run.locks import held
from ..run.messages import UserError
from ..run.resources import CLASS_IMAGES_TOGETHER
from ..run.run_dir import Run
from .batches import generator

TOGETHER = {"cuda": CLASS_IMAGES_TOGETHER, "xpu": CLASS_IMAGES_TOGETHER}
"""Class images that are drawn at a time, by the kind of device. On a CPU more at once is no faster, and a stop would lose them;
on a Mac the scores of attention, which are not counted, would take gigabytes."""


def make_class_images(context: Context, base: BaseModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> Dataset:
    """Return the run's class images, those that are not there yet drawn from the base; processes share the work.

    Each picture has a seed of its own, so a longer run of the same base and prompt only draws what is new. Another run that
    wants the same ones waits, and finds them.
    """
    settings, reporter = context.settings.dreambooth, context.reporter
    folder = class_image_folder(context.run_dir.path.parent, context.run)
    paths = [folder / f"{number:04}.png" for number in range(settings.class_images)]

    def report_waiting() -> None:
        reporter.phase(WAITING_FOR_CLASS_IMAGES)

    # Of several processes the others would wait for the first at a barrier, for minutes: they do without.
    alone = context.accelerator.num_processes == 1
    with held(folder / "lock", report_waiting, context.stop.check) if alone else nullcontext():
        reporter.phase(CLASS_IMAGES, len(paths))
        _draw_missing(context, base, text_encoder, tokenizer, paths)
        context.accelerator.wait_for_everyone()
    return class_dataset(paths, settings.class_prompt, context.run.dataset)


def class_image_folder(root: Path, run: Run) -> Path:
    """Return where the class images of a run's base, prompt, size and sampler lie: others are never mistaken for them."""
    deciding = [run.base_fingerprint, run.settings.dreambooth.class_prompt, run.dataset.resolution, SAMPLER]
    if run.settings.training.text_layer != -1:  # the text encoder's last: left out, as those of older runs are called
        deciding.append(run.settings.training.text_layer)
    return root / "class-images" / hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]


def _draw_missing(
    context: Context, base: BaseModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, paths: list[Path]
) -> None:
    """Draw the pictures of this process' share of the paths that do not exist."""
    missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if not missing:
        return
    accelerator, resolution = context.accelerator, context.run.dataset.resolution
    states, empty = encode_prompts(text_encoder, tokenizer, [context.settings.dreambooth.class_prompt, ""])
    unet = base.unet()
    freeze_as(unet, DTYPES[context.settings.training.precision])
    use_fast_attention(unet, context.device, unet.dtype)
    sampler = ImageSampler(move(unet, context.device), base.vae())
    # By their numbers: another process may have looked when some of ours were there.
    own = [(number, path) for number, path in missing if number % accelerator.num_processes == accelerator.process_index]
    begun, together = time.monotonic(), TOGETHER.get(context.device.type, 1)
    for first in range(0, len(own), together):
        batch = own[first : first + together]
        generators = [generator("class image", number) for number, _ in batch]
        context.stop.check()
        try:
            images = sampler.draw_batch(states, empty, resolution, generators, context.stop)
        except NotFiniteError as error:
            raise UserError(
                "No class image can be made with the base model {base}: {reason}. It is broken; use another checkpoint.",
                base=context.run.base_name,
                reason=error.message,
            ) from None
        for image, (_, path) in zip(images, batch, strict=True):
            save_image(image, path)
        done = first + len(batch)
        there = len(paths) - len(missing) + done * accelerator.num_processes
        left = (time.monotonic() - begun) / done * (len(own) - done)
        context.reporter.progress(there, len(paths), seconds_left=left)


def class_dataset(paths: list[Path], prompt: str, dataset: Dataset) -> Dataset:
    """Return the pictures as photos under the class prompt, prepared as those of `dataset` but without augmentation."""
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
    return replace(dataset.without_augmentation(), photos=photos, crop="center", token="", warnings=())
