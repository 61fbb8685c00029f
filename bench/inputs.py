"""What both sides of the comparison are given: one base in two layouts, one folder of photos, one caption."""

import argparse
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from demo import photos as demo_photos
from tools import standin
from trainer.dataset.folder import read_folder
from trainer.dataset.folder_files import PHOTO_SUFFIXES
from trainer.dataset.photos import Dataset
from trainer.run.files import write_json
from trainer.run.run_dir import Run, RunDir
from trainer.run.settings import Settings

TOKEN, CLASS_WORD = "mysks", "plush toy"
# The reference knows one caption for all photos, so there is one for both.
INSTANCE_PROMPT = f"a photo of {TOKEN} {CLASS_WORD}"
CLASS_PROMPT = f"a photo of a {CLASS_WORD}"
INITIALIZER = "toy"
LEARNING_RATE = {"dreambooth": 2e-6, "textual_inversion": 5e-4}
METHOD_SETTINGS = {
    "dreambooth": {"train": "unet"},
    "textual_inversion": {"initializer": INITIALIZER, "template_set": "object"},  # the script's own
}
CLASS_COLOURS = ((90, 20, 120), (20, 120, 90), (120, 90, 20), (30, 60, 150))


@dataclass(frozen=True)
class Inputs:
    """Paths, absolute."""

    checkpoint: Path
    """The base as one file in the original layout."""
    pipeline: Path | None
    """The same weights as a folder in diffusers' layout, fp32, where the reference wants them."""
    photos: Path
    class_photos: Path | None
    tokenizer: Path


def prepare(args: argparse.Namespace, work: Path, tokenizer: Path) -> Inputs:
    """Everything under `work`, but for a checkpoint of the user's own."""
    checkpoint = args.checkpoint.resolve() if args.checkpoint else work / "standin.safetensors"
    if not args.checkpoint:
        standin.build(checkpoint, taught=False)  # the figures of earlier runs are of this one
    convert(checkpoint, tokenizer, work / "pipeline")
    gather_photos(args.photos, args.batch_size, work / "photos")
    class_photos = None
    if args.prior:
        class_photos = draw_class_photos(work / "class", len(list((work / "photos").iterdir())))
    return Inputs(checkpoint, work / "pipeline", work / "photos", class_photos, tokenizer)


def draw_class_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        demo_photos.draw_photo(colour, colour[::-1], shift=60).save(folder / f"{number:03}.png")
    return folder


def gather_photos(source: Path | None, batch_size: int, target: Path) -> None:
    """Photos alone, a multiple of the batch size: the reference cuts the last batch of an epoch short, we do not."""
    if source is None:
        source = target.with_name("drawn")
        demo_photos.draw(source)
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if not files:
        raise SystemExit(f"The folder {source} has no photos.")
    target.mkdir()
    for number in range(max(batch_size, len(files) - len(files) % batch_size)):
        file = files[number % len(files)]
        shutil.copy(file, target / f"{number:03}{file.suffix.lower()}")


def convert(checkpoint: Path, tokenizer: Path, target: Path) -> None:
    """The checkpoint as a diffusers pipeline folder, by the same code that the worker reads it with."""
    from diffusers import StableDiffusionPipeline

    from trainer.models.sd15 import BaseModel, load_tokenizer, noise_schedule

    base = BaseModel(checkpoint)
    StableDiffusionPipeline(
        vae=base.vae(),
        text_encoder=base.text_encoder(),
        tokenizer=load_tokenizer(str(tokenizer)),
        unet=base.unet(),
        scheduler=noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)


def dataset(folder: Path, resolution: int, caption: str) -> Dataset:
    loaded, _ = read_folder(folder, resolution)
    return loaded.with_captions([caption] * len(loaded.photos), token=TOKEN, class_word=CLASS_WORD)


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of our side of a comparison."""
    return Settings.of(
        method=args.method,
        token=TOKEN,
        class_word=CLASS_WORD,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=LEARNING_RATE[args.method],
        seed=args.seed,
        precision=args.precision,
        **METHOD_SETTINGS[args.method],
    )


def write_run(settings: Settings, prepared: Inputs, resolution: int, folder: Path) -> RunDir:
    """A run directory for the worker, as the nodes write it; class photos are used where there are any."""
    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    try:
        os.link(prepared.checkpoint, run_dir.base)
    except OSError:  # another file system
        shutil.copy(prepared.checkpoint, run_dir.base)
    run = Run(
        name="bench",
        settings=settings,
        dataset=dataset(prepared.photos, resolution, INSTANCE_PROMPT),
        class_dataset=dataset(prepared.class_photos, resolution, CLASS_PROMPT) if prepared.class_photos else None,
        base_fingerprint="bench",
        export_path=str(folder / "trained.safetensors"),
        tokenizer_path=str(prepared.tokenizer),
    )
    write_json(run_dir.run_json, run.to_json())
    return run_dir
