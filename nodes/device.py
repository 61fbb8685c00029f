"""The device that ComfyUI computes on: which one, what it can do, and how to have it free."""

import time

import comfy.model_management
import torch


def name() -> str:
    return str(comfy.model_management.get_torch_device())


def resolve_precision(precision: str) -> str:
    """ "auto" is bf16 where the device computes in it, else fp32. Never fp16, which needs loss scaling."""
    if precision != "auto":
        return precision
    kind = comfy.model_management.get_torch_device().type
    has_bf16 = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": lambda: getattr(torch.cpu, "_is_avx512_bf16_supported", bool)(),
    }
    return "bf16" if kind in has_bf16 and has_bf16[kind]() else "fp32"


def memory() -> int:
    """Bytes that the device has in all: ComfyUI's own models leave it before the worker starts."""
    return comfy.model_management.get_total_memory(comfy.model_management.get_torch_device())


def matmul_speed(precision: str) -> float:
    """Floating point operations a second of a square matrix product on the device; takes well under a second."""
    where = comfy.model_management.get_torch_device()
    side = 512 if where.type == "cpu" else 4096
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    factor = torch.ones((side, side), dtype=dtype, device=where)
    seconds = []
    for _ in range(2):  # the first wakes the library
        began = time.perf_counter()
        float((factor @ factor)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def free() -> None:
    """Unload every model that ComfyUI holds on the device, so that the worker has it for itself."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
