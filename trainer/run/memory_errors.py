"""How the libraries say that memory ran out: each in words, and by types, of its own. Plain data, no torch."""

import errno
import os
import re

from .messages import MessageError

WINDOWS_ERRORS = (8, 14, 1455)
"""ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY, and ERROR_COMMITMENT_LIMIT: the page file is too small."""
_WORDINGS = re.compile(
    "|".join(
        (
            # Devices: "CUDA out of memory", "CUDA error: out of memory", "CUDA driver error: out of memory", the same of HIP and
            # XPU, "MPS backend out of memory", NCCL's "Cuda failure 2 'out of memory'", bitsandbytes' "Error out of memory at".
            r"\b(cuda|hip|mps|xpu|npu|backend|device|driver|error|failure)\b[:' \d]*\bout of memory\b",
            # The same as names of codes: CUBLAS_STATUS_ALLOC_FAILED and those of cuDNN, cuSPARSE, cuSOLVER and hipBLAS,
            # CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, CUDA_ERROR_OUT_OF_MEMORY, cudaErrorMemoryAllocation,
            # UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY, rocblas_status_memory_error.
            r"(_|\b)alloc(ation)?_failed\b|error_?out_?of_?(device_?|host_?)?memory|ErrorMemoryAllocation|status_memory_error",
            r"would exceed allowed memory|not enough GPU (video )?memory|\bInvalid buffer size: ",
            # The CPU: torch's allocator on Linux and on Windows, the C library, C++, numpy.
            r"\bcan(no|')t allocate memory\b|\bnot enough memory: you tried to allocate\b|\bbad_alloc\b|\bbad allocation\b",
            r"\bout of memory error when \w+ image file\b",  # Pillow
            r"\b(fail(ed|ure)|unable) to allocate (memory|[\d.]+ ?(bytes|[kmgt]i?b)\b)|can't start new thread",
            # Windows, by its own words.
            r"\bpaging file is too small\b|\bnot enough (memory resources are|storage is) available to \w+ ",
        )
    ),
    re.IGNORECASE,
)
_CODES = re.compile(rf"\[Errno {errno.ENOMEM}\]|\[WinError ({'|'.join(map(str, WINDOWS_ERRORS))})\]|\(os error (12|1455)\)")
_RUST_CODES_OF_WINDOWS = re.compile(r"\(os error (8|14)\)")
"""Elsewhere these numbers are "exec format error" and "bad address"."""


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether the error, or one that it was raised from, says that memory ran out, on the device or beside it."""
    seen = set()
    while error is not None and id(error) not in seen:
        if _says_out_of_memory(error):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False


def _says_out_of_memory(error: BaseException) -> bool:
    types = [kind.__name__ for kind in type(error).__mro__]
    if isinstance(error, MemoryError) or "OutOfMemoryError" in types:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in WINDOWS_ERRORS
    # Words count where a library speaks of the machine: not in our own sentences and not in those of Python, which quote captions
    # and names of files.
    of_library = isinstance(error, RuntimeError | OSError | ImportError | SystemError) or type(error).__module__ != "builtins"
    if not of_library or isinstance(error, MessageError):
        return False
    text = str(error)
    on_windows = os.name == "nt" and _RUST_CODES_OF_WINDOWS.search(text)
    return bool(_WORDINGS.search(text) or _CODES.search(text) or on_windows)
