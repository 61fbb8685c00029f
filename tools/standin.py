"""Build a stand-in for the SD v1.5 checkpoint: same file format, no download.

    python -m tools.standin OUT.safetensors [--random [--seed 0]]

CLIP-L and the VAE have their full size, the U-Net has two levels of SD v1.5's own blocks, so ComfyUI's checkpoint loader
takes the file for SD v1.5. CLIP is random. The VAE's weights are written down instead of trained: it is a real AutoencoderKL
that turns a photo into its 8x-reduced self and back (see `vae_weights`). The U-Net was taught a drawn world at 128 pixels
(demo/world): it draws "a watercolor painting of a blue car on a beach", and what it is trained on besides can be seen to be
learned, and the rest to be kept. With --random it is random: a test asks for that where it is about bytes, about states or
about one photo learned by heart, and not about what a model knows; then any seed and any depth of CLIP will do.

The text encoder is stored in fp16, U-Net and VAE in fp32: the types ComfyUI holds them in on a CPU, so that a file it saves
again has the same bytes.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from demo.world.weights import load as load_taught

CHANNELS = (320, 320)
CONTEXT_DIM = 768
TAUGHT_SEED = 0
"""Seed of the text encoder whose words the taught U-Net knows."""


@dataclass(frozen=True)
class Size:
    """How large the parts of a stand-in are."""

    text_layers: int
    unet: tuple[int, ...]
    """Channels of each level."""
    vae: tuple[int, int, int, int]
    """Channels of each level; the last is 512 or, for the written weights' groups, 128."""
    unet_blocks: int = 1
    """Residual blocks of a level of the U-Net's way down; one more on its way up."""


FULL = Size(text_layers=12, unet=CHANNELS, vae=(128, 256, 512, 512))
"""What ComfyUI takes for SD v1.5."""
SMALL = Size(text_layers=2, unet=(64, 64), vae=(128, 128, 128, 128))
"""What the worker takes for it, and is quicker with: the engine reads these sizes from the file."""
SD15 = Size(text_layers=12, unet=(320, 640, 1280, 1280), vae=FULL.vae, unet_blocks=2)
"""SD v1.5's own, to measure what a card makes of it."""

# The channels in which the VAE carries a picture: for each colour the value, its negative, and a large constant and its
# negative. Four is what one normalisation group of the decoder's last layer holds (128 channels / 32 groups).
COLOUR, NEGATIVE, PLUS, MINUS = range(4)
CONSTANT = 30.0
# Photos in [-1, 1] have a standard deviation near 0.5; latents shall have 1 after the factor 0.18215.
LATENT_SCALE = 1 / (0.18215 * 0.5)


def unet_shapes(channels: tuple[int, ...], blocks: int = 1) -> dict[str, tuple[int, ...]]:
    """Names (original LDM layout) and shapes of an SD v1.5 U-Net with `channels` per level, attention on all but the last."""
    shapes: dict[str, tuple[int, ...]] = {}
    time_dim = 4 * channels[0]

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    def res_block(name: str, cin: int, cout: int) -> None:
        layer(f"{name}.in_layers.0", cin)
        layer(f"{name}.in_layers.2", cout, cin, 3, 3)
        layer(f"{name}.emb_layers.1", cout, time_dim)
        layer(f"{name}.out_layers.0", cout)
        layer(f"{name}.out_layers.3", cout, cout, 3, 3)
        if cin != cout:
            layer(f"{name}.skip_connection", cout, cin, 1, 1)

    def transformer(name: str, c: int) -> None:
        layer(f"{name}.norm", c)
        layer(f"{name}.proj_in", c, c, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, context in (("attn1", c), ("attn2", CONTEXT_DIM)):
            shapes[f"{block}.{attention}.to_q.weight"] = (c, c)
            shapes[f"{block}.{attention}.to_k.weight"] = (c, context)
            shapes[f"{block}.{attention}.to_v.weight"] = (c, context)
            layer(f"{block}.{attention}.to_out.0", c, c)
        layer(f"{block}.ff.net.0.proj", 8 * c, c)
        layer(f"{block}.ff.net.2", c, 4 * c)
        for i in (1, 2, 3):
            layer(f"{block}.norm{i}", c)
        layer(f"{name}.proj_out", c, c, 1, 1)

    layer("time_embed.0", time_dim, channels[0])
    layer("time_embed.2", time_dim, time_dim)
    layer("input_blocks.0.0", channels[0], 4, 3, 3)
    skips, c, index = [channels[0]], channels[0], 1
    last = len(channels) - 1
    for level, cout in enumerate(channels):
        for _ in range(blocks):
            res_block(f"input_blocks.{index}.0", c, cout)
            if level != last:
                transformer(f"input_blocks.{index}.1", cout)
            skips.append(c := cout)
            index += 1
        if level != last:
            layer(f"input_blocks.{index}.0.op", c, c, 3, 3)
            skips.append(c)
            index += 1
    res_block("middle_block.0", c, c)
    transformer("middle_block.1", c)
    res_block("middle_block.2", c, c)
    index = 0
    for level in range(last, -1, -1):
        for i in range(blocks + 1):
            res_block(f"output_blocks.{index}.0", c + skips.pop(), channels[level])
            c = channels[level]
            if level != last:
                transformer(f"output_blocks.{index}.1", c)
            if level and i == blocks:
                layer(f"output_blocks.{index}.{1 if level == last else 2}.conv", c, c, 3, 3)
            index += 1
    layer("out.0", c)
    layer("out.2", 4, c, 3, 3)
    return shapes


def unet_weights(generator: torch.Generator, size: Size) -> dict[str, torch.Tensor]:
    """Random U-Net: norms are identities, every other layer has torch's default uniform(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    weights = {}
    shapes = unet_shapes(size.unet, size.unet_blocks)
    for name, shape in shapes.items():
        fan_in = math.prod(shapes[name.removesuffix("bias") + "weight"][1:]) if name.endswith("bias") else math.prod(shape[1:])
        if fan_in == 1:
            weights[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        else:
            weights[name] = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)
    return weights


def clip_weights(generator: torch.Generator, layers: int) -> dict[str, torch.Tensor]:
    """Random CLIP-L text encoder with token embeddings 50 x as large as CLIP's usual 0.02.

    So scaled, different words give nearly orthogonal states and the U-Net can learn to tell prompts apart.
    """
    weights = {}

    def normal(name: str, *shape: int, std: float = 0.02) -> None:
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * std

    def layer(name: str, *shape: int) -> None:
        normal(name, *shape)
        weights[f"{name}.bias"] = torch.zeros(shape[0])

    def norm(name: str) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.ones(768), torch.zeros(768)

    normal("embeddings.token_embedding", 49408, 768, std=1.0)
    normal("embeddings.position_embedding", 77, 768)
    for i in range(layers):
        block = f"encoder.layers.{i}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            layer(f"{block}.self_attn.{projection}", 768, 768)
        norm(f"{block}.layer_norm1")
        layer(f"{block}.mlp.fc1", 3072, 768)
        layer(f"{block}.mlp.fc2", 768, 3072)
        norm(f"{block}.layer_norm2")
    norm("final_layer_norm")
    return {name: weight.half() for name, weight in weights.items()}


def vae_weights(channels: tuple[int, int, int, int]) -> dict[str, torch.Tensor]:
    """An AutoencoderKL that averages 8x8 pixels into a latent and spreads it out again, without training.

    - Residual and attention blocks add zero to their input.
    - SiLU is undone by carrying a colour and its negative: silu(x) - silu(-x) = x.
    - GroupNorm is undone by constants that dwarf the colours in their group: the mean is exactly 0 and the deviation fixed.
    - Three colours become four latent channels through a tetrahedral frame A, with A+ = A^T / (4/3) on the way back.
    """
    weights: dict[str, torch.Tensor] = {}

    def layer(name: str, cout: int, cin: int, kernel: int) -> tuple[torch.Tensor, torch.Tensor]:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.zeros(cout, cin, kernel, kernel), torch.zeros(cout)
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def norm(name: str, channels: int) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.ones(channels), torch.zeros(channels)

    def res_block(name: str, cin: int, cout: int) -> None:
        norm(f"{name}.norm1", cin)
        layer(f"{name}.conv1", cout, cin, 3)
        norm(f"{name}.norm2", cout)
        layer(f"{name}.conv2", cout, cout, 3)
        if cin != cout:
            shortcut, _ = layer(f"{name}.nin_shortcut", cout, cin, 1)
            shortcut[:12, :12, 0, 0] = torch.eye(12)

    def middle(name: str, c: int) -> None:
        res_block(f"{name}.block_1", c, c)
        norm(f"{name}.attn_1.norm", c)
        for projection in ("q", "k", "v", "proj_out"):
            layer(f"{name}.attn_1.{projection}", c, c, 1)
        res_block(f"{name}.block_2", c, c)

    def spread(name: str, cout: int, cin: int, matrix: torch.Tensor) -> None:
        """A convolution whose centre maps `cin` inputs to colours by `matrix` (3, cin) and sets the constants."""
        weight, bias = layer(name, cout, cin, 3)
        for colour in range(3):
            weight[4 * colour + COLOUR, :, 1, 1] = matrix[colour]
            weight[4 * colour + NEGATIVE, :, 1, 1] = -matrix[colour]
            bias[4 * colour + PLUS], bias[4 * colour + MINUS] = CONSTANT, -CONSTANT

    def gather(name: str, cout: int, cin: int, matrix: torch.Tensor) -> None:
        """A convolution whose centre maps the colours to outputs by `matrix` (n, 3), undoing norm and SiLU."""
        weight, _ = layer(name, cout, cin, 3)
        group = cin // 32  # its channels; those that are constants decide its deviation
        scale = CONSTANT * math.sqrt(2 * min(3, group // 4) / group)
        for colour in range(3):
            weight[: len(matrix), 4 * colour + COLOUR, 1, 1] = matrix[:, colour] * scale
            weight[: len(matrix), 4 * colour + NEGATIVE, 1, 1] = -matrix[:, colour] * scale

    frame = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)  # (4 latents, 3 colours)
    first, last = channels[0], channels[-1]

    spread("encoder.conv_in", first, 3, torch.eye(3))
    c = first
    for level, cout in enumerate(channels):
        for block in range(2):
            res_block(f"encoder.down.{level}.block.{block}", c, cout)
            c = cout
        if level < 3:
            weight, _ = layer(f"encoder.down.{level}.downsample.conv", c, c, 3)
            for i in range(12):
                weight[i, i, :2, :2] = 0.25  # the padding is on the right and below, so these taps see the 2x2 pixels alone
    middle("encoder.mid", last)
    norm("encoder.norm_out", last)
    gather("encoder.conv_out", 8, last, frame * LATENT_SCALE)
    weights["encoder.conv_out.bias"][4:] = -10.0  # log variance: next to none
    quant, _ = layer("quant_conv", 8, 8, 1)
    quant[:, :, 0, 0] = torch.eye(8)

    post_quant, _ = layer("post_quant_conv", 4, 4, 1)
    post_quant[:, :, 0, 0] = torch.eye(4)
    spread("decoder.conv_in", last, 4, frame.T * (3 / 4) / LATENT_SCALE)
    middle("decoder.mid", last)
    blur = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    c = last
    for level in (3, 2, 1, 0):
        for block in range(3):
            res_block(f"decoder.up.{level}.block.{block}", c, channels[level])
            c = channels[level]
        if level:
            weight, _ = layer(f"decoder.up.{level}.upsample.conv", c, c, 3)
            for colour in range(3):
                for i in (COLOUR, NEGATIVE):
                    weight[4 * colour + i, 4 * colour + i] = blur
                for i in (PLUS, MINUS):
                    weight[4 * colour + i, 4 * colour + i, 1, 1] = 1.0
    norm("decoder.norm_out", first)
    gather("decoder.conv_out", 3, first, torch.eye(3))
    return weights


def build(path: Path, seed: int = TAUGHT_SEED, size: Size = FULL, taught: bool = True) -> None:
    """Write the stand-in checkpoint (about 0.7 GB) to `path`; the same arguments give the same bytes.

    Raises ValueError for a taught one of another seed or size, because its U-Net was taught the words of this text encoder.
    """
    if taught and (seed, size) != (TAUGHT_SEED, FULL):
        raise ValueError("The taught U-Net goes with the text encoder of seed 0 and full size: ask for taught=False.")
    generator = torch.Generator().manual_seed(seed)
    unet = unet_weights(generator, size)  # also when it is not used: the text encoder's numbers come after its own
    if taught:
        unet = load_taught(unet_shapes(size.unet))
    weights = {f"model.diffusion_model.{k}": v for k, v in unet.items()}
    weights |= {f"cond_stage_model.transformer.text_model.{k}": v for k, v in clip_weights(generator, size.text_layers).items()}
    weights |= {f"first_stage_model.{k}": v for k, v in vae_weights(size.vae).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    partial.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the stand-in checkpoint.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--random", action="store_true", help="with a random U-Net, of any seed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build(args.out, args.seed, taught=not args.random)
    print(f"{args.out}: {args.out.stat().st_size / 1e9:.2f} GB", file=sys.stderr)
