"""Memory of the computer that a step frees is kept for the next one."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's numbers for what `mallopt` sets."""
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed; with another C library nothing happens.

    It would give each one back to the system, which fills the next one with zeros, page after page: a fifth of a step on a CPU.
    """
    with suppress(OSError, TypeError, AttributeError):  # no such library (Windows), no such function (macOS, musl)
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)  # what loading has freed is given back first
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
