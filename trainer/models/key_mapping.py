"""Weight names: the original (LDM) layout of a checkpoint file <-> diffusers.

No table is written here. diffusers' own converter, run over a dict of key -> key, gives it; the inverse is derived.
"""

import re
from collections.abc import Iterable, Mapping

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from ..run.messages import UserError

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
VAE_CHANNELS = (128, 256, 512, 512)
"""Of the levels of SD v1.5's VAE."""
VAE_GROUPS = 32
"""Into which its norms divide the channels."""


def unet_config(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Return diffusers' UNet2DConditionModel settings for LDM keys (with prefix) and shapes.

    SD v1.5 has channels 320, 640, 1280, 1280, two layers a block, attention in all levels but the last, 8 heads; fewer
    levels and other widths of the same architecture are read off as well. Raises UserError for anything else.
    """
    blocks: list[list[str]] = [[]]  # per level the prefixes of its residual blocks
    index = 1
    while f"{UNET_PREFIX}input_blocks.{index}.0.op.weight" in shapes or _res(index) in shapes:
        if _res(index) in shapes:
            blocks[-1].append(f"{UNET_PREFIX}input_blocks.{index}")
        else:
            blocks.append([])
        index += 1
    if not blocks[0] or len({len(level) for level in blocks}) != 1:
        raise UserError("The base model's U-Net is not of SD v1.5's architecture.")
    attention = [f"{level[0]}.1.proj_in.weight" in shapes for level in blocks]
    return {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": tuple(shapes[f"{level[0]}.0.out_layers.3.weight"][0] for level in blocks),
        "layers_per_block": len(blocks[0]),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,  # historical name in diffusers: the number of heads
    }


def _res(index: int) -> str:
    return f"{UNET_PREFIX}input_blocks.{index}.0.out_layers.3.weight"


def unet_table(ldm_keys: Iterable[str], config: dict) -> dict[str, str]:
    """Return diffusers key -> LDM key (with prefix), for every U-Net key of `ldm_keys`.

    Raises UserError when a key has no counterpart or two share one.
    """
    ldm_keys = {k for k in ldm_keys if k.startswith(UNET_PREFIX)}
    table = convert_ldm_unet_checkpoint({k: k for k in ldm_keys}, config)
    missing = ldm_keys - set(table.values())
    if missing or len(table) != len(ldm_keys):
        raise UserError(
            "{count} U-Net tensors of the base model are unknown, for example {first}.",
            count=len(missing),
            first=min(missing, default=""),
        )
    return table


def vae_config(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Return diffusers' AutoencoderKL settings for LDM keys (with prefix) and shapes: SD v1.5's, or one of other widths.

    A width that no VAE can have is taken for SD v1.5's, so that what is wrong is told by name when the model is filled.
    """

    def width(level: int) -> int:
        found = shapes.get(f"{VAE_PREFIX}encoder.down.{level}.block.0.conv1.weight", ())[:1]
        return found[0] if found and found[0] and found[0] % VAE_GROUPS == 0 else VAE_CHANNELS[level]

    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(VAE_CHANNELS),
        "up_block_types": ("UpDecoderBlock2D",) * len(VAE_CHANNELS),
        "block_out_channels": tuple(map(width, range(len(VAE_CHANNELS)))),
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": VAE_GROUPS,
    }


def vae_weights(base: Mapping[str, Tensor], config: dict) -> dict[str, Tensor]:
    """Return the VAE's tensors of a checkpoint, under diffusers' names and shapes."""
    return convert_ldm_vae_checkpoint({k: v for k, v in base.items() if k.startswith(VAE_PREFIX)}, config)


def text_weights(base: Mapping[str, Tensor], model_keys: Iterable[str]) -> dict[str, Tensor]:
    """Return the text encoder's tensors of a checkpoint, under the names that `model_keys` uses.

    transformers 5.6 dropped the prefix `text_model.` from CLIPTextModel's keys; both layouts are served.
    """
    prefix = "text_model." if any(k.startswith("text_model.") for k in model_keys) else ""
    weights = {prefix + k.removeprefix(TEXT_PREFIX): v for k, v in base.items() if k.startswith(TEXT_PREFIX)}
    # The position ids are 0..76, a constant that some files carry and some versions refuse.
    return {k: v for k, v in weights.items() if not re.search(r"embeddings\.position_ids$", k)}


def text_layers(base: Iterable[str]) -> int:
    """Return how many layers the text encoder of a checkpoint has: 12 in SD v1.5."""
    return max(map(text_layer, base), default=-1) + 1


def text_layer(name: str) -> int:
    """Return which layer of the text encoder, from 0, a tensor of a checkpoint belongs to by its name; -1: to none."""
    number = re.match(re.escape(TEXT_PREFIX) + r"encoder\.layers\.(\d+)\.", name)
    return int(number[1]) if number else -1


def ldm_text_name(name: str) -> str:
    """Return the LDM name (with prefix) of a text encoder's tensor, by either of transformers' layouts."""
    return TEXT_PREFIX + name.removeprefix("text_model.")
