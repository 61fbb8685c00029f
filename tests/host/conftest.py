"""One real ComfyUI server for the whole tier, on a base directory of its own."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from demo.run import adapt, node
from demo.server import Server, free_port
from demo.setup import comfyui_path

BASES = Path(__file__).parent / "bases.py"


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory, standin_base, photo_folder) -> Path:
    """ComfyUI's folders: the stand-in and small models of other families, one folder of photos."""
    base = tmp_path_factory.mktemp("comfyui")
    checkpoints = base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    os.link(standin_base, checkpoints / "standin.safetensors")
    subprocess.run([sys.executable, BASES, comfyui_path(), checkpoints], check=True)
    shutil.copytree(photo_folder, base / "input" / "plush")
    return base


@pytest.fixture(scope="module", autouse=True)
def no_weights_left(base_directory):
    """What the runs of a module weigh goes with it: each is some hundred megabytes."""
    yield
    for file in (base_directory / "output").rglob("*.safetensors"):
        file.unlink()


@pytest.fixture(scope="session")
def start_server(base_directory):
    """Start another server on the same folders, as a restart does."""
    return lambda: Server(base_directory, port=free_port(), cpu=True)


@pytest.fixture(scope="session")
def workers(base_directory):
    """The worker processes that any server on these folders has running."""

    def found() -> list[psutil.Process]:
        processes = psutil.process_iter(["cmdline"])
        lines = [(process, " ".join(process.info["cmdline"] or ())) for process in processes]
        return [process for process, line in lines if "__main__.py" in line and str(base_directory) in line]

    return found


@pytest.fixture(scope="session")
def server(start_server):
    with start_server() as running:
        yield running


@pytest.fixture
def graph(shipped_workflow) -> dict:
    """The shipped workflow on the stand-in and the drawn photos, as in the demo."""
    filled = copy.deepcopy(shipped_workflow)
    adapt(filled, "standin.safetensors", "plush", "", standin=True)
    return filled


@pytest.fixture
def quick_graph(graph) -> dict:
    """The same at 64 pixels, with two steps of training."""
    graph[node(graph, "DatasetLoader")]["inputs"]["resolution"] = 64
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": 64, "height": 64}
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"steps": 2, "lr_warmup_steps": 0, "name": "quick"}
    for label in ("(before)", "(after)"):
        graph[node(graph, "KSampler", label)]["inputs"]["steps"] = 4
    return graph


def exported(graph: dict, result, base_directory: Path) -> dict:
    """The tensors of the checkpoint that the graph's DreamBooth node has written."""
    file = result.outputs[node(graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    return load_file(base_directory / "output" / "checkpoints" / file)


def picture_graph(loader: dict, prompt: str | list, clip: list | None = None, size: int = 64) -> dict:
    """Sample with what the loader node gives (MODEL, CLIP, VAE in this order): node "save" shows the picture."""
    clip = clip or ["loader", 1]
    return {
        "loader": loader,
        "positive": {"class_type": "CLIPTextEncode", "inputs": {"clip": clip, "text": prompt}},
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": clip, "text": ""}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["loader", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent_image": ["latent", 0],
                "seed": 1,
                "steps": 25,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["loader", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "test"}},
    }
