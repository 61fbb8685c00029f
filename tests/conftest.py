"""What all tiers share: photos and the stand-in base, made once for all processes of a test run."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

IN_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
if IN_PARALLEL:  # before torch is loaded: a thread a process, else those of two processes wait for each other's
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

from demo import photos  # noqa: E402
from tools import standin  # noqa: E402

settings.register_profile("any load", deadline=None)  # other processes may hold up any example
settings.load_profile("any load")
TIERS = ("host", "training", "unit")
LONGEST = ("test_textual_inversion.py", "test_stopping.py", "test_trained_parts.py", "test_faults.py")
"""Files that begin their tier, for the same reason."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, and begin with the tier that takes longest, so that parallel processes end together."""
    for item in items:
        item.add_marker(item.path.parent.name)
    items.sort(key=lambda item: (TIERS.index(item.path.parent.name), item.path.name not in LONGEST))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a path below the test run's folder, made by a function: once, though several processes ask for it."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if IN_PARALLEL else root

    def path_made_by(name: str, make: Callable[[Path], object]) -> Path:
        path = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not path.exists():
                make(path)
        return path

    return path_made_by


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """Return a folder of four drawn photos with captions."""
    folder = tmp_path_factory.mktemp("photos") / "plush"
    photos.draw(folder)
    return folder


@pytest.fixture(scope="session")
def standin_base(made_once) -> Path:
    """Return the random stand-in: for what is about states, bytes and one photo learned by heart, whatever a model knows."""
    return made_once("standin-sd15.safetensors", lambda path: standin.build(path, taught=False))


@pytest.fixture(scope="session")
def taught_base(made_once) -> Path:
    """Return the stand-in that knows the drawn world: for what is about how good the result is."""
    return made_once("standin-taught.safetensors", standin.build)


@pytest.fixture(scope="session")
def shipped_workflow() -> dict:
    """Return the first API-format workflow of the pack."""
    path = Path(__file__).parent.parent / "workflows" / "api" / "Train a subject (DreamBooth or LoRA).json"
    return json.loads(path.read_text(encoding="utf-8"))
