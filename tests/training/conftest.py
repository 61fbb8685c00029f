"""Run directories on the stand-in base, as the nodes write them."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from demo import photos, standin
from trainer.dataset.captions import caption_with_token
from trainer.dataset.folder import read_folder
from trainer.dataset.photos import Dataset
from trainer.run.files import write_json
from trainer.run.run_dir import EMBEDDING_KEY, Run, RunDir
from trainer.run.settings import Settings

from .runs import TOKENIZER


@pytest.fixture(scope="session")
def standin_base(made_once) -> Path:
    """Return a small random stand-in: the worker is quicker with it, and no test of this is about the size."""
    return made_once("standin-small.safetensors", lambda path: standin.build(path, size=standin.SMALL, taught=False))


@pytest.fixture(scope="session")
def full_base(made_once) -> Path:
    """Return the random stand-in of full size."""
    return made_once("standin-sd15.safetensors", lambda path: standin.build(path, taught=False))


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
def make_run(dataset, standin_base, tmp_path):
    """Write a run directory, as the nodes do, and give it."""

    def make(
        settings: Settings,
        name="toy",
        class_dataset: Dataset | None = None,
        *,
        dataset=dataset,
        base=standin_base,
        embedding: torch.Tensor | None = None,
    ) -> RunDir:
        run_dir = RunDir(tmp_path / name)
        run_dir.path.mkdir()
        os.link(base, run_dir.base)
        run = Run(
            name=name,
            settings=settings,
            dataset=dataset,
            class_dataset=class_dataset,
            base_fingerprint="standin",
            embedding="" if embedding is None else "given",
            embedding_path=str(tmp_path / f"{name}-word.safetensors"),
            export_path=str(tmp_path / f"{name}.safetensors"),
            tokenizer_path=str(TOKENIZER),
        )
        write_json(run_dir.run_json, run.to_json())
        if embedding is not None:
            save_file({EMBEDDING_KEY: embedding}, run_dir.embedding)
        return run_dir

    return make
