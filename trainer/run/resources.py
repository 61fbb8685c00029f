"""What a run takes of memory, disk and time, by arithmetic, before anything is loaded. Plain data, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..dataset.photos import Dataset
from ..parts import part_types
from ..parts.memory import SD15_UNET, BaseSize, PartMemory
from .messages import Message, message
from .run_dir import Run

GB = 1e9
OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2.1, "adafactor": 0.1, "prodigy": 16}
"""Bytes of state for each trained weight: two fp32 moments; two bytes and their scales; row and column means; four fp32."""
ACTIVATIONS, RECOMPUTED = 0.94 * GB, 0.35 * GB
"""Bytes that a 512 x 512 sample keeps for the backward pass in bf16, counted over autograd's saved tensors; and with gradient
checkpointing, where 0.155 GB is counted and the rest is an allowance for the block that is computed again."""
CONTEXT = 0.8 * GB
"""What CUDA itself and fragmentation take, about."""
SAMPLE_FLOP = 2.41e12
"""Forward and backward pass of a 512 x 512 sample through SD v1.5's U-Net."""


@dataclass(frozen=True)
class Resources:
    """What a run takes."""

    memory: float
    """Bytes on each device at the peak."""
    disk: float
    """Bytes at the peak, while one saved state is replaced by the next; what stays is the exported file."""
    flop: float
    """Floating point operations of the whole run."""


def estimate(run: Run, unet_weights: int = SD15_UNET, base_bytes: float = 4.3 * GB) -> Resources:
    """Return what a run takes with a U-Net of so many weights and a base file of so many bytes, all photos counted as squares."""
    base = BaseSize(unet_weights, base_bytes)
    settings, training = run.settings, run.settings.training
    parts = [part.memory(settings, base) for part in part_types(run)]
    trained = sum(weights for part in parts for weights in part.trained.values())
    state = OPTIMIZER_BYTES[settings.optimizer.optimizer] + (4 if settings.optimizer.ema_decay else 0)
    sample = (run.dataset.resolution / 512) ** 2 * base.unet_weights / SD15_UNET
    samples = training.batch_size // training.devices * (2 if run.class_dataset or settings.dreambooth.class_images else 1)
    fp32 = training.precision == "fp32"
    activations = samples * sample * (RECOMPUTED if training.gradient_checkpointing else ACTIVATIONS) * (2 if fp32 else 1)
    # Autocast keeps a half-precision copy of the fp32 weights; with checkpointing only of the block at work.
    copies = 0 if fp32 else (0.1 if training.gradient_checkpointing else 1.0) * 2 * sum(part.cast for part in parts)
    memory = trained * (8 + state) + _frozen(parts) + copies + activations + CONTEXT
    best = 4 * trained if settings.validation.early_stopping != "off" else 0
    caches = cache_bytes(run.dataset, run.class_dataset) * training.devices
    exported = sum(part.exported for part in parts)
    disk = base.file_bytes + 2 * trained * (4 + state) + best + exported + caches
    passes = 4 / 3 if training.gradient_checkpointing else 1.0
    steps = training.steps * training.gradient_accumulation_steps
    return Resources(memory, disk, steps * samples * training.devices * SAMPLE_FLOP * sample * passes)


def _frozen(parts: Sequence[PartMemory]) -> float:
    """Return the bytes of the models that no part trains, each counted once."""
    trained = {name for part in parts for name in part.trained}
    frozen = {name: weights for part in parts for name, weights in part.frozen.items()}
    return sum(weights for name, weights in frozen.items() if name not in trained)


def cache_bytes(*datasets: Dataset | None) -> float:
    """Return the bytes of the latents of all views (mean and deviation, fp32, an eighth of the side) and of the text states."""
    return sum(
        len(dataset.photos) * (dataset.views * 2 * 4 * 4 * (dataset.resolution / 8) ** 2 + 77 * 768 * 4)
        for dataset in datasets
        if dataset
    )


def describe_resources(resources: Resources, seconds: float) -> Message:
    """Return what a run takes as a sentence; the time is left out below a minute, where the estimate is far too low."""
    memory, disk = resources.memory / GB, resources.disk / GB
    if seconds < 60:
        return message("Needs about {memory:.1f} GB of memory on the device, and {disk:.1f} GB of disk", memory=memory, disk=disk)
    return message(
        "Needs about {memory:.1f} GB of memory on the device, {disk:.1f} GB of disk, and very roughly {time}",
        memory=memory,
        disk=disk,
        time=duration(seconds),
    )


def duration(seconds: float) -> Message:
    """Return a time in the unit that suits it."""
    if seconds >= 5400:
        return message("{hours:.1f} h", hours=seconds / 3600)
    return message("{minutes:.0f} min", minutes=seconds / 60) if seconds >= 90 else message("{seconds:.0f} s", seconds=seconds)


def remedies(run: Run) -> list[Message]:
    """Return what makes a run take less memory on the device, as the values of a message."""
    settings = run.settings
    remedies = [
        (not settings.training.gradient_checkpointing, message("gradient_checkpointing on")),
        (
            settings.training.batch_size > 1,
            message("a smaller batch_size (gradient_accumulation_steps makes up for it)"),
        ),
        (settings.optimizer.optimizer in ("adamw", "prodigy"), message("optimizer adamw_8bit")),
        (settings.optimizer.ema_decay > 0, message("ema_decay 0")),
        (run.result_kind == "checkpoint", message("train 'lora'")),
        (True, message("a lower resolution")),
    ]
    return [remedy for applies, remedy in remedies if applies]


def refusal(resources: Resources, run: Run, device_bytes: float, disk_bytes: float) -> Message | None:
    """Return what cannot fit, with numbers and a remedy; None when all fits."""
    if resources.memory > device_bytes:
        return message(
            "This run needs about {memory:.1f} GB of memory on the device, which has {there:.1f} GB. It becomes less with: "
            "{remedies}.",
            memory=resources.memory / GB,
            there=device_bytes / GB,
            remedies=remedies(run),
        )
    if resources.disk > disk_bytes:
        return message(
            "This run needs about {disk:.1f} GB of disk while it trains; {free:.1f} GB are free where ComfyUI's output folder "
            "is. Free some space.",
            disk=resources.disk / GB,
            free=disk_bytes / GB,
        )
    return None
