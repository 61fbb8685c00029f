"""Devices that no computer of the tests has, and what `auto` takes on them."""

from trainer.dataset.photos import Dataset, Photo
from trainer.run.choice import Device
from trainer.run.resources import GB

PHOTOS = Dataset(
    photos=tuple(Photo(path=f"{i}.png", sha256="0", width=512, height=512, caption="mysks") for i in range(15)),
    resolution=512,
    token="mysks",
    class_word="toy",
    class_prompt="a photo of a toy",
)


def card(gigabytes: float, half: str = "bf16", **more) -> Device:
    return Device(kind="cuda", memory=gigabytes * GB, half=half, **more)


FULL, SMALL = "unet_and_token", "adamw_8bit"
AUTO = {
    "4 GB": (card(4), ("lora", "adamw", 1, True, False, "bf16"), 2.3),
    "6 GB": (card(6), ("lora", "adamw", 1, False, False, "bf16"), 3.3),
    "8 GB": (card(8), (FULL, SMALL, 1, True, True, "bf16"), 6.0),
    "10 GB": (card(10), (FULL, SMALL, 4, True, True, "bf16"), 6.9),
    "12 GB": (card(12), (FULL, SMALL, 4, True, False, "bf16"), 9.7),
    "16 GB": (card(16), (FULL, SMALL, 4, False, False, "bf16"), 12.3),
    "24 GB": (card(24), (FULL, "adamw", 4, False, False, "bf16"), 17.4),
    "80 GB": (card(80), (FULL, "adamw", 4, False, False, "bf16"), 17.4),
    "4 GB, fp16": (card(4, "fp16"), ("lora", "adamw", 1, True, False, "fp16"), 2.3),
    "8 GB, fp16": (card(8, "fp16"), ("lora", "adamw", 1, False, False, "fp16"), 3.3),
    "6 GB, fp32": (card(6, ""), ("lora", "adamw", 1, True, False, "fp32"), 4.2),
    "12 GB, fp32": (card(12, ""), (FULL, SMALL, 1, True, False, "fp32"), 9.6),
    "12 GB without 8-bit": (card(12, eight_bit=False), (FULL, "adafactor", 4, True, False, "bf16"), 9.8),
    "CPU": (Device(kind="cpu", memory=16 * GB, half=""), ("lora", "adamw", 1, False, False, "fp32"), 5.9),
    "CPU, bf16": (Device(kind="cpu", memory=256 * GB, half="bf16"), ("lora", "adamw", 1, False, False, "bf16"), 3.3),
    "Mac, 8 GB": (Device(kind="mps", memory=8 * GB, half=""), ("lora", "adamw", 1, True, False, "fp32"), 4.2),
    "Mac, 16 GB": (Device(kind="mps", memory=16 * GB, half=""), ("lora", "adamw", 1, False, False, "fp32"), 5.9),
    "Mac, 64 GB": (Device(kind="mps", memory=64 * GB, half=""), (FULL, "adamw", 4, False, False, "fp32"), 19.5),
}
"""Devices, what `auto` takes there (train, optimizer, batch_size, gradient_checkpointing, low_memory, precision), and its GB."""

TOO_SMALL = {
    "4 GB, fp32": card(4, ""),
    "CPU, 4 GB": Device(kind="cpu", memory=4 * GB, half=""),
    "Mac, 4 GB": Device(kind="mps", memory=4 * GB, half=""),
    "5 GB, fp32": card(5, ""),
    "CPU, 5 GB": Device(kind="cpu", memory=5 * GB, half=""),
}
"""Devices without half precision on which not even a LoRA fits."""
