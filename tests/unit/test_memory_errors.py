import errno
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from trainer.context import TrainingError
from trainer.dataset.decode import decode_photo
from trainer.failures import describe
from trainer.run.memory_errors import out_of_memory
from trainer.run.messages import UserError

from .test_resources import STUDY, run_of


class AllocatorError(torch.OutOfMemoryError):
    """As a later torch may have it."""


AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)
MORE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect."
    "\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
)


def caused_by(cause: BaseException, error: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def numpys_error() -> MemoryError:
    with pytest.raises(MemoryError) as error:
        np.empty((2**45,), np.float64)
    return error.value


def cpu_allocators_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.uint8)
    return error.value


def with_winerror(number: int, text: str) -> OSError:
    error = OSError(errno.EINVAL, text)
    error.winerror = number  # as on Windows
    return error


def accelerator_error(text: str) -> BaseException:
    try:
        return AcceleratorError(text)
    except TypeError:  # torch 2.14's wants a code
        return AcceleratorError(text, 2)


OUT = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "a subclass": AllocatorError("Allocation on device 0 would exceed allowed memory."),
    "no words": torch.OutOfMemoryError(""),
    "an older torch": RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.93 GiB total capacity)"),
    "runtime": RuntimeError(f"CUDA error: out of memory{MORE}"),
    "accelerator": accelerator_error(f"CUDA error: out of memory{MORE}"),
    "driver": RuntimeError("CUDA driver error: out of memory"),
    "cuda code": RuntimeError("CUDA error: cudaErrorMemoryAllocation"),
    "driver code": RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    "hip": RuntimeError("HIP out of memory. Tried to allocate 1.00 GiB"),
    "hip error": RuntimeError("HIP error: out of memory\nHIP kernel errors might be asynchronously reported"),
    "hip code": RuntimeError("HIP error: hipErrorOutOfMemory"),
    "xpu": RuntimeError("XPU out of memory. Tried to allocate 1.00 GiB"),
    "level zero": RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    "directml": RuntimeError("Could not allocate tensor with 52428800 bytes. There is not enough GPU video memory available!"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)."),
    "mps buffer": RuntimeError("Invalid buffer size: 24.00 GiB"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "hipblas": RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    "rocblas": RuntimeError("rocblas_status_memory_error"),
    "cusolver": RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cudnn host": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    "cudnn device": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "nccl": RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"),
    "bitsandbytes": RuntimeError("Error out of memory at line 380 in file /src/csrc/pythonInterface.c"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 99 bytes."),
    "cpu of windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
    "cpu itself": cpu_allocators_error(),
    "c++": RuntimeError("std::bad_alloc"),
    "c++ of windows": RuntimeError("bad allocation"),
    "python": MemoryError(),
    "pillow": OSError("out of memory error when reading image file"),
    "numpy": numpys_error(),
    "a thread": RuntimeError("can't start new thread"),
    "system call": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "system call in words": OSError("[Errno 12] Cannot allocate memory: 'base.safetensors'"),
    "system call in an older torch": RuntimeError("unable to mmap 99 bytes from file <x>: Cannot allocate memory (12)"),
    "page file": with_winerror(1455, "die Auslagerungsdatei ist zu klein"),
    "page file in words": OSError(
        "[WinError 1455] The paging file is too small for this operation to complete. Error loading x.dll"
    ),
    "page file of a library": ImportError("DLL load failed while importing _C: The paging file is too small for this operation"),
    "windows 8": with_winerror(8, "Not enough memory resources are available to process this command"),
    "windows 14": with_winerror(14, "Not enough storage is available to complete this operation"),
    "safetensors": SafetensorError("Cannot allocate memory (os error 12)"),
    "safetensors, another language": OSError("Nicht genügend Speicher (os error 12)"),
    "safetensors of windows": SafetensorError("Error while deserializing header: I/O error: (os error 1455)"),
    "safetensors, windows 8": OSError("Not enough memory resources are available to process this command. (os error 8)"),
}
OUT |= {
    "raised from": caused_by(OUT["cublas"], RuntimeError("the step failed")),
    "raised from a raised from": caused_by(caused_by(MemoryError(), KeyError("moments")), UserError("It cannot be read.")),
}
NOT = {
    "assert": RuntimeError(f"CUDA error: device-side assert triggered{MORE}"),
    "illegal access": accelerator_error(f"CUDA error: an illegal memory access was encountered{MORE}"),
    "launch": RuntimeError(f"CUDA error: unspecified launch failure{MORE}"),
    "kernels": RuntimeError(f"CUDA error: no kernel image is available for execution on the device{MORE}"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    "mapping": RuntimeError("CUDA error: mapping of buffer object failed"),
    "format": RuntimeError("unsupported memory format option Preserve"),
    "pinned": RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned: memory"),
    "shared": RuntimeError("Some tensors share memory, this will lead to duplicate memory on disk"),
    "overlap": RuntimeError("unsupported operation: some elements refer to a single memory location"),
    "caption": UserError("The caption {caption!r} does not contain the token.", caption="the CUDA error: out of memory"),
    "file": FileNotFoundError(errno.ENOENT, "No such file or directory", "CUDA out of memory.png"),
    "key": KeyError("std::bad_alloc"),
    "value": ValueError("a photo of a dog that cannot allocate memory"),
    "story": RuntimeError("a tale out of memory and time"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "damage": SafetensorError("Error while deserializing header: HeaderTooLarge"),
    "rust 14 on linux": SafetensorError("Bad address (os error 14)"),
    "rust 120": SafetensorError("Structure needs cleaning (os error 120)"),
    "diverged": TrainingError("The loss became {loss}.", loss=float("nan")),
}


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(run_of(STUDY).to_json()))
    return tmp_path


@pytest.mark.parametrize("error", OUT.values(), ids=OUT.keys())
def test_the_worker_says_that_memory_ran_out(run_folder, error):
    assert out_of_memory(error)
    assert str(describe(error, run_folder)).startswith("The memory ran out: with SD v1.5 this run needs about")


@pytest.mark.parametrize("error", NOT.values(), ids=NOT.keys())
def test_other_errors_are_not_taken_for_it(run_folder, error):
    assert not out_of_memory(error)
    assert "memory ran out" not in str(describe(error, run_folder))


def test_a_circle_of_causes_ends():
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert not out_of_memory(one)
    assert not out_of_memory(None)


def test_a_photo_is_not_called_damaged_when_there_is_no_memory_for_it(monkeypatch):
    def fails(*_) -> None:
        raise OSError("out of memory error when reading image file")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fails)
    data = io.BytesIO()
    Image.new("RGB", (64, 64)).save(data, "PNG")
    with pytest.raises(OSError, match="out of memory"):
        decode_photo(data.getvalue())
