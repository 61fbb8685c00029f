"""The device that ComfyUI computes on: its name, precision, memory and speed, and how to free it."""

import os
import sys
import time
from typing import Any

import comfy.model_management
import torch

from ...trainer.run.devices import Device, allocator_settings, device_refusal, low_memory_refusal, precision_refusal
from ...trainer.run.eight_bit import is_known_to_fail
from ...trainer.run.messages import Message


def name() -> str:
    """Return the name that torch has for the device: "cuda:0"."""
    return str(comfy.model_management.get_torch_device())


def description(devices: int) -> Device:
    """Return what a choice of settings needs to know of the device, or of so many of them, as far as it costs nothing.

    That 8-bit AdamW cannot run is known once a run has tried it.
    """
    kind, eight_bit = comfy.model_management.get_torch_device().type, not is_known_to_fail(name())
    return Device(kind=kind, memory=total_memory(devices), half=half_precision(), eight_bit=eight_bit)


def half_precision() -> str:
    """Return bf16 where the device computes in it, else fp16 on NVIDIA cards where ComfyUI trusts it, "" on all others."""
    device = comfy.model_management.get_torch_device()
    if device.type == "cpu":
        return "bf16" if getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)() else ""
    if device.type != "cuda":
        return ""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    # As where weights are cast: with the GTX 10 series, and without the 16 series, whose fp16 is broken.
    return "fp16" if comfy.model_management.should_use_fp16(device, manual_cast=True) else ""


def refusal(asked: int, precision: str = "", low_memory: bool = False) -> Message | None:
    """Return why so many devices of this computer cannot train, or not with these settings; None when they can."""
    kind = comfy.model_management.get_torch_device().type
    of_devices = device_refusal(sys.platform, kind, torch.cuda.device_count() if kind == "cuda" else 1, asked)
    return of_devices or precision_refusal(kind, precision) or low_memory_refusal(kind, low_memory)


def total_memory(devices: int) -> int:
    """Return how many bytes each of so many devices has in all: ComfyUI's own models leave them before the worker starts."""
    device = comfy.model_management.get_torch_device()
    if devices > 1 and device.type == "cuda":  # the smallest decides; asking ComfyUI would take memory on every one of them
        there = range(min(devices, torch.cuda.device_count()))
        return min(torch.cuda.get_device_properties(index).total_memory for index in there)
    memory: Any = comfy.model_management.get_total_memory(device)
    return memory // devices  # on the CPU they share it


def held_by_models() -> int:
    """Return how many bytes ComfyUI's models keep on the device however they are unloaded: 0 but for --highvram and --gpu-only.

    These two leave unloaded models on the card. To move them off behind ComfyUI's back would leave it with wrong ideas of them.
    """
    device, manager = comfy.model_management.get_torch_device(), comfy.model_management
    if manager.vram_state != manager.VRAMState.HIGH_VRAM or device.type not in ("cuda", "xpu"):
        return 0
    free()  # of what it can let go of
    return getattr(torch, device.type).memory_allocated(device)


def matmul_speed(precision: str) -> float:
    """Measure, in well under a second, the floating point operations a second of a square matrix product on the device."""
    device = comfy.model_management.get_torch_device()
    side = 512 if device.type == "cpu" else 4096
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    factor = torch.ones((side, side), dtype=dtype, device=device)
    seconds = []
    for _ in range(2):  # the first product also loads the library
        began = time.perf_counter()
        float((factor @ factor)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def allocator_of_worker() -> str:
    """Return the settings of torch's allocator on the device for the worker."""
    return allocator_settings(sys.platform, torch.version.cuda is not None, os.environ.get("PYTORCH_CUDA_ALLOC_CONF", ""))


def free() -> None:
    """Unload every model that ComfyUI holds on the device, so that the worker has all of its memory."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
