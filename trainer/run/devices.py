"""On what can be trained: kinds of devices, and how many of them together. Plain data, no torch."""

from dataclasses import dataclass

from .messages import Message, message

SHARED = ("cpu", "mps")
"""Kinds of devices that have the computer's own memory."""
NAMES = {"privateuseone": "DirectML"}
"""What users know a kind of device as, where torch has another name."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a choice of settings, and a check of their memory, need to know of the device."""

    kind: str
    """torch's name: "cuda", "xpu", "mps", "cpu"."""
    memory: float
    """Bytes in all. Not those that are free now: the same graph asks for the same run whenever it is queued."""
    half: str
    """The half precision that it computes well in, "bf16" or "fp16"; "" for none."""
    eight_bit: bool = True
    """Whether 8-bit AdamW runs there."""
    held: float = 0
    """Bytes that ComfyUI's own models keep while the worker trains."""


def device_refusal(platform: str, kind: str, there: int, asked: int) -> Message | None:
    """Return why so many devices cannot train; None when they can.

    `platform` is sys.platform, `kind` torch's name for the kind of device, `there` how many of them this process sees. Processes
    on the CPU may be as many as one likes.
    """
    if kind not in ("cuda", "mps", "cpu", "xpu"):
        return message(
            "ComfyUI computes on {kind}, which training cannot use: it needs CUDA (NVIDIA, or AMD with ROCm), Intel's XPU, "
            "Apple's MPS or the CPU. Start ComfyUI with --cpu to train on the CPU.",
            kind=NAMES.get(kind, kind),
        )
    if asked == 1 or kind == "cpu":
        return None
    if kind == "xpu":
        return message("devices is {asked}, but of Intel's GPUs one alone can train. Set devices to 1.", asked=asked)
    if kind == "mps":
        return message("devices is {asked}, but a Mac has one GPU. Set devices to 1.", asked=asked)
    if platform == "win32":
        return message(
            "devices is {asked}, but several GPUs cannot train together on Windows: torch has no NCCL there. Set devices to 1, "
            "or train under Linux.",
            asked=asked,
        )
    if asked > there:
        return message(
            "devices is {asked}, but ComfyUI sees {there}. Set devices to {there} or less, or let ComfyUI see more GPUs: "
            "--cuda-device and CUDA_VISIBLE_DEVICES say which.",
            asked=asked,
            there=there,
        )
    return None


def precision_refusal(kind: str, precision: str) -> Message | None:
    """Return why a run of this precision cannot train on a kind of device; None when it can."""
    if precision == "fp16" and kind == "cpu":
        return message("fp16 training needs a GPU. Choose precision auto or fp32.")
    return None


def low_memory_refusal(kind: str, low_memory: bool) -> Message | None:
    """Return why a kind of device cannot save memory by low_memory; None where it can, or shall not."""
    if low_memory and kind in SHARED:
        return message(
            "low_memory is on, but this device has no memory of its own to save: what it saves goes to the computer's. Set it to "
            "auto."
        )
    return None


def allocator_settings(platform: str, is_nvidia: bool, given: str) -> str:
    """Return PYTORCH_CUDA_ALLOC_CONF for the worker, where ComfyUI's is `given`.

    ComfyUI chooses CUDA's own allocator, which suits models that come and go. What a run needs was measured with torch's, which
    splits less where its segments can grow: on NVIDIA's cards under Linux.
    """
    kept = [part.strip() for part in given.split(",") if part.strip() and part.split(":")[0].strip() != "backend"]
    if platform == "linux" and is_nvidia and not any(part.startswith("expandable_segments:") for part in kept):
        kept.append("expandable_segments:True")
    return ",".join(kept)
