"""What all tiers share: photos and the stand-in base, made once per session."""

import json
from pathlib import Path

import pytest

from demo import photos, standin


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """Four drawn photos with captions."""
    folder = tmp_path_factory.mktemp("photos") / "plush"
    photos.draw(folder)
    return folder


@pytest.fixture(scope="session")
def standin_base(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("base") / "standin-sd15.safetensors"
    standin.build(path)
    return path


@pytest.fixture(scope="session")
def shipped_workflow() -> dict:
    """The API-format workflow of the pack."""
    path = Path(__file__).parent.parent / "workflows" / "api" / "train_and_compare.json"
    return json.loads(path.read_text(encoding="utf-8"))
