"""Build random encoders as ComfyUI's loaders read them, of CLIP ViT-L's size: no download.

    python -m tools.encoders IMAGE_ENCODER.safetensors [TEXT_ENCODER.safetensors]

A random network compares pictures by their pixels, so to speak: enough to see that a picture is nearer to a photo than another
one, and far from what the trained encoders know of subjects.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from .standin import clip_weights

WIDTH, LAYERS, PATCH, SIDE, PROJECTED = 1024, 24, 14, 224, 768
"""What ComfyUI takes for CLIP ViT-L."""


def vision_weights(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return the weights of an image encoder, with the variance of their inputs kept, in fp16."""
    weights: dict[str, torch.Tensor] = {}

    def normal(name: str, *shape: int) -> None:
        fan_in = torch.Size(shape[1:]).numel() or 1
        weights[name] = (torch.randn(shape, generator=generator) / fan_in**0.5).half()

    def layer(name: str, *shape: int) -> None:
        normal(f"{name}.weight", *shape)
        weights[f"{name}.bias"] = torch.zeros(shape[0], dtype=torch.float16)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = torch.ones(WIDTH, dtype=torch.float16)
        weights[f"{name}.bias"] = torch.zeros(WIDTH, dtype=torch.float16)

    embeddings = "vision_model.embeddings"
    normal(f"{embeddings}.class_embedding", WIDTH)
    normal(f"{embeddings}.patch_embedding.weight", WIDTH, 3, PATCH, PATCH)
    normal(f"{embeddings}.position_embedding.weight", (SIDE // PATCH) ** 2 + 1, WIDTH)
    norm("vision_model.pre_layrnorm")
    for i in range(LAYERS):
        block = f"vision_model.encoder.layers.{i}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            layer(f"{block}.self_attn.{projection}", WIDTH, WIDTH)
        norm(f"{block}.layer_norm1")
        layer(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        layer(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
        norm(f"{block}.layer_norm2")
    norm("vision_model.post_layernorm")
    normal("visual_projection.weight", PROJECTED, WIDTH)
    return weights


def build_image_encoder(path: Path, seed: int = 0) -> None:
    """Write a random image encoder (0.6 GB) for Load CLIP Vision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(vision_weights(torch.Generator().manual_seed(seed)), path)


def build_text_encoder(path: Path, seed: int = 0) -> None:
    """Write a random text encoder (0.3 GB) with the projection into the space of the image encoder, for Load CLIP."""
    generator = torch.Generator().manual_seed(seed)
    weights = {f"text_model.{name}": weight for name, weight in clip_weights(generator, 12).items()}
    weights["text_projection.weight"] = (torch.randn(PROJECTED, 768, generator=generator) / 768**0.5).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


if __name__ == "__main__":
    build_image_encoder(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        build_text_encoder(Path(sys.argv[2]))
