"""What one run has encoded, another one reads; and nothing else."""

import os
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from trainer.data.latent_store import KEPT_DAYS, LatentStore
from trainer.models.sd15 import BaseModel

from .runs import DREAMBOOTH, losses_of, work_here

DAY = 24 * 3600


@pytest.fixture
def encoded(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of what the VAE encodes from now on."""
    shapes, encode = [], AutoencoderKL.encode

    def note(vae, pixels, *more):
        shapes.append(tuple(pixels.shape))
        return encode(vae, pixels, *more)

    monkeypatch.setattr(AutoencoderKL, "encode", note)
    return shapes


def test_a_second_run_encodes_only_what_is_new_and_gives_the_same_bytes(make_run, encoded):
    settings = DREAMBOOTH.replace(steps=2, lr_warmup_steps=0, train="lora")
    first, again, longer = make_run(settings, "first"), make_run(settings, "again"), make_run(settings.replace(steps=3), "longer")
    work_here(first)
    photos = len(first.load_run().dataset.photos)
    assert len(encoded) == photos
    work_here(again)
    work_here(longer)
    assert len(encoded) == photos
    one, two = (load_file(run_dir.load_run().export_path) for run_dir in (first, again))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert losses_of(longer)[:2] == losses_of(first) == losses_of(again)
    flipped = make_run(settings, "flipped", dataset=replace(first.load_run().dataset, flip=True))
    work_here(flipped)
    assert len(encoded) == 2 * photos  # the mirrored ones alone


def picture(*size: int, shade: int = 200) -> Image.Image:
    return Image.new("RGB", size, (shade, 10, 10))


def test_what_shows_something_else_is_something_else(small_base, tmp_path):
    vae, made = BaseModel(small_base).vae(), []

    def ask(store: LatentStore, image: Image.Image) -> float:
        def encode() -> torch.Tensor:
            made.append(len(made))
            return torch.full((2, 4, 8, 8), float(made[-1]))

        return float(store.posterior(image, encode)[0, 0, 0, 0])

    store = LatentStore(tmp_path, vae)
    numbers = [ask(store, image) for image in (picture(64, 64), picture(64, 128), picture(128, 64), picture(64, 64, shade=201))]
    assert numbers == [0, 1, 2, 3]
    assert [ask(LatentStore(tmp_path, vae), image) for image in (picture(128, 64), picture(64, 64))] == [2, 0]
    with torch.no_grad():
        next(vae.decoder.parameters()).add_(1.0)
    assert ask(LatentStore(tmp_path, vae), picture(64, 64)) == 0  # it encodes alike
    with torch.no_grad():
        next(vae.encoder.parameters()).add_(1e-3)
    assert ask(LatentStore(tmp_path, vae), picture(64, 64)) == 4


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_file_that_cannot_be_read_is_made_again_and_one_that_cannot_be_written_is_done_without(small_base, tmp_path, damage):
    vae, right = BaseModel(small_base).vae(), torch.randn(2, 4, 8, 8)
    store = LatentStore(tmp_path, vae)
    store.posterior(picture(64, 64), lambda: right)
    (file,) = tmp_path.glob("latents/*/*")
    file.unlink()
    if damage is None:
        file.mkdir()  # where nothing can be written either
        (file / "in the way").touch()
    else:
        file.write_bytes(damage)
    for _ in range(2):
        assert torch.equal(store.posterior(picture(64, 64), lambda: right), right)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    if damage is not None:
        assert torch.equal(load_file(file)["posterior"], right)


def test_files_that_nobody_used_for_a_month_go_of_other_vaes_too(small_base, tmp_path):
    vae = BaseModel(small_base).vae()
    store = LatentStore(tmp_path, vae)
    shades = {shade: store.posterior(picture(64, 64, shade=shade), lambda: torch.zeros(2, 4, 8, 8)) for shade in (1, 2, 3)}
    files = sorted(tmp_path.glob("latents/*/*"))
    assert len(files) == len(shades)
    other = tmp_path / "latents" / "other-cpu" / "old.safetensors"
    other.parent.mkdir()
    other.touch()
    for age, file in zip((KEPT_DAYS + 1, KEPT_DAYS - 1, KEPT_DAYS + 1, KEPT_DAYS + 1), (*files, other), strict=True):
        time = file.stat().st_mtime - age * DAY
        os.utime(file, (time, time))
    store.posterior(picture(64, 64, shade=1), lambda: torch.zeros(2, 4, 8, 8))  # whichever file that is: it is used
    LatentStore(tmp_path, vae)
    left = sorted(tmp_path.glob("latents/*/*"))
    assert files[1] in left
    assert other not in left
    assert 1 <= len(left) <= 2
