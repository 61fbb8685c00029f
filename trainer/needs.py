"""What a run will need, by arithmetic, before anything is loaded. Plain data, no torch."""

import re
from dataclasses import dataclass

from .config import Settings
from .photos import Dataset

GB = 1e9
SD15_UNET = 859_520_964
"""Weights of SD v1.5's U-Net."""
TEXT_ENCODER = 123_060_480
OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2.1, "adafactor": 0.1, "prodigy": 16}
"""Bytes of state for each trained weight: two fp32 moments; two bytes and their scales; row and column means; four fp32."""
LORA_WEIGHTS_PER_RANK = {"attention": 199_296, "attention_and_convolution": 777_856}
"""Of SD v1.5's U-Net."""
ACTIVATIONS, RECOMPUTED = 0.94 * GB, 0.35 * GB
"""Bytes that a 512 x 512 sample keeps for the backward pass in bf16, counted over autograd's saved tensors; and with gradient
checkpointing, where 0.155 GB is counted and the rest is an allowance for the block that is computed again."""
CONTEXT = 0.8 * GB
"""What CUDA itself and fragmentation take, about."""
SAMPLE_FLOP = 2.41e12
"""Forward and backward pass of a 512 x 512 sample through SD v1.5's U-Net."""


@dataclass(frozen=True)
class Needs:
    memory: float
    """Bytes on each device at the peak."""
    disk: float
    """Bytes at the peak, while one saved state is replaced by the next; what stays is the exported file."""
    flop: float
    """Floating point operations of the whole run."""


def cache_bytes(*datasets: Dataset | None) -> float:
    """What the latents of all views and the states of all captions take: mean and deviation, fp32, an eighth of the side."""
    return sum(
        len(dataset.photos) * (dataset.views * 2 * 4 * 4 * (dataset.resolution / 8) ** 2 + 77 * 768 * 4)
        for dataset in datasets
        if dataset
    )


def needs(
    settings: Settings,
    resolution: int,
    unet_weights: int = SD15_UNET,
    base_bytes: float = 4.3 * GB,
    trains_word: bool = False,
    cached_bytes: float = 0.0,
) -> Needs:
    """Of a run with square photos of `resolution` pixels; other U-Nets of the family by their number of weights.

    `trains_word`: the token has vectors of its own, so the text encoder stays on the device. `cached_bytes`: what lies on the
    disk while it trains.
    """
    half = settings.precision != "fp32"
    share = unet_weights / SD15_UNET
    samples = settings.batch_size // settings.devices * (2 if settings.prior_loss_weight else 1)
    pixels = (resolution / 512) ** 2
    with_text = settings.train == "unet_and_text_encoder"
    lora = settings.train == "lora" and settings.method == "dreambooth"
    if settings.method == "textual_inversion":
        trained, frozen = 768 * settings.vectors, (2 if half else 4) * unet_weights + 4 * TEXT_ENCODER
    elif lora:
        trained = share * settings.lora_rank * LORA_WEIGHTS_PER_RANK[settings.lora_layers]
        frozen = (2 if half else 4) * unet_weights
    else:
        trained = unet_weights + (TEXT_ENCODER if with_text else 0)
        frozen = 4 * TEXT_ENCODER if settings.train == "unet_and_token" else 0
    if trains_word and settings.train == "lora":
        frozen += 4 * TEXT_ENCODER
    state = OPTIMIZER_BYTES[settings.optimizer] + (4 if settings.ema_decay else 0)
    # Autocast keeps a half-precision copy of the fp32 weights; with checkpointing only of the block at work.
    casts = half and settings.method == "dreambooth" and not lora
    copies = (0.1 if settings.gradient_checkpointing else 1.0) * 2 * unet_weights if casts else 0
    kept = (RECOMPUTED if settings.gradient_checkpointing else ACTIVATIONS) * (1 if half else 2)
    memory = trained * (8 + state) + frozen + copies + samples * kept * pixels * share + CONTEXT
    saved = trained * (4 + state)
    exported = 2 * trained if lora or settings.method == "textual_inversion" else base_bytes
    best = 4 * trained if settings.early_stopping != "off" else 0
    passes = 4 / 3 if settings.gradient_checkpointing else 1.0
    steps = settings.steps * settings.gradient_accumulation_steps
    flop = steps * samples * settings.devices * SAMPLE_FLOP * share * pixels * passes
    return Needs(memory, base_bytes + 2 * saved + best + exported + cached_bytes, flop)


def in_words(found: Needs, seconds: float) -> str:
    """One line for the artist."""
    memory, disk = found.memory / GB, found.disk / GB
    if seconds < 60:  # a small model, for which the estimate is far too low
        return f"Needs about {memory:.1f} GB of memory on the device, and {disk:.1f} GB of disk"
    return f"Needs about {memory:.1f} GB of memory on the device, {disk:.1f} GB of disk, and very roughly {duration(seconds)}"


def duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def out_of_memory(error: Exception) -> bool:
    """Whether that is what an error of any library says."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or bool(re.search(r"[Cc]an(no|')t allocate memory|os error 12\)|not enough memory|can't start new thread", str(error)))
    )


def remedies(settings: Settings) -> str:
    """What makes a run of these settings need less memory on the device."""
    listed = [
        "gradient_checkpointing on" if not settings.gradient_checkpointing else "",
        "a smaller batch_size (gradient_accumulation_steps makes up for it)" if settings.batch_size > 1 else "",
        "optimizer adamw_8bit" if settings.optimizer in ("adamw", "prodigy") else "",
        "ema_decay 0" if settings.ema_decay else "",
        "train 'lora'" if settings.method == "dreambooth" and settings.train != "lora" else "",
        "a lower resolution",
    ]
    return ", ".join(remedy for remedy in listed if remedy)


def refusal(found: Needs, settings: Settings, device_bytes: float, disk_bytes: float) -> str:
    """What cannot fit, with numbers and a remedy; "" when all fits."""
    if found.memory > device_bytes:
        return (
            f"This run needs about {found.memory / GB:.1f} GB of memory on the device, which has {device_bytes / GB:.1f} GB. "
            f"It becomes less with: {remedies(settings)}."
        )
    if found.disk > disk_bytes:
        return (
            f"This run needs about {found.disk / GB:.1f} GB of disk while it trains; {disk_bytes / GB:.1f} GB are free where "
            "ComfyUI's output folder is. Free some space."
        )
    return ""
