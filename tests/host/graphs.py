"""What the host tests share: graphs to queue, and what came of them."""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from demo.run import node


def exported(graph: dict, result, base_directory: Path) -> dict:
    """The tensors of the checkpoint that the graph's DreamBooth node has written."""
    file = result.outputs[node(graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    return load_file(base_directory / "output" / "checkpoints" / file)


def picture_graph(loader: dict, prompt: str | list, clip: list | None = None, size: int = 64, steps: int = 25) -> dict:
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
                "steps": steps,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["loader", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "test"}},
    }


def up_to_training(graph: dict, *more: str) -> dict:
    """Only what the training node needs, and the nodes of these ids."""
    wanted = ("CheckpointLoaderSimple", "DatasetLoader", "CaptionWithToken", "DreamBoothTrain")
    return {i: n for i, n in graph.items() if n["class_type"] in wanted or i in more}


def without_before(graph: dict) -> dict:
    """The shipped workflow without the picture that its base draws."""
    return {i: n for i, n in graph.items() if not n["_meta"]["title"].endswith(("(before)", "before training"))}


def train_node(**changes) -> dict:
    inputs = {
        "model": ["loader", 0],
        "clip": ["loader", 1],
        "vae": ["loader", 2],
        "dataset": ["photos", 0],
        "preset": "own settings",
        "token": "inverted",
        "initializer": "toy",
        "steps": 8,
        "batch_size": 1,
        "learning_rate": 0.1,
        "seed": 0,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "precision": "auto",
        "gradient_checkpointing": "off",
        "checkpoint_every": 0,
    }
    return {"class_type": "TextualInversionTrain", "inputs": inputs | changes}


def shown(server, result, node_id: str) -> Image.Image:
    return server.image(result.outputs[node_id]["images"][0]).convert("RGB")


def same(one: Image.Image, two: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(two))
