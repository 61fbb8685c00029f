"""Run directories on the stand-in base, as the nodes write them."""

from pathlib import Path

import pytest
import torch

from demo import photos
from tools import standin
from trainer.dataset.captions import caption_with_token
from trainer.dataset.folder import read_folder
from trainer.dataset.photos import Dataset
from trainer.run.run_dir import RunDir
from trainer.run.settings import Settings

from .runs import write_run


@pytest.fixture(scope="session")
def small_base(made_once) -> Path:
    """Return a small random stand-in: the worker is quicker with it, and no test of this is about the size."""
    return made_once("standin-small.safetensors", lambda path: standin.build(path, size=standin.SMALL, taught=False))


@pytest.fixture(scope="session")
def dataset(photo_folder) -> Dataset:
    loaded, _ = read_folder(photo_folder, 64)
    captions = [caption_with_token(photo.caption, "mysks", "plush toy") for photo in loaded.photos]
    return loaded.with_captions(captions, token="mysks", class_word="plush toy")


@pytest.fixture(scope="session")
def class_dataset(tmp_path_factory) -> Dataset:
    """Two class images under the class prompt."""
    folder = tmp_path_factory.mktemp("class")
    for number, colour in enumerate(((90, 20, 120), (20, 120, 90))):
        photos.draw_photo(colour, colour[::-1], shift=60).save(folder / f"{number}.png")
    loaded, _ = read_folder(folder, 64)
    return loaded.with_captions(["a photo of a plush toy"] * 2)


@pytest.fixture
def make_run(dataset, small_base, tmp_path):
    """Write a run directory, as the nodes do, and give it."""

    def make(
        settings: Settings,
        name="toy",
        class_dataset: Dataset | None = None,
        *,
        dataset=dataset,
        base=small_base,
        embedding: torch.Tensor | None = None,
        lora: dict[str, torch.Tensor] | None = None,
    ) -> RunDir:
        return write_run(tmp_path / name, base, settings, dataset, class_dataset, embedding, lora)

    return make
