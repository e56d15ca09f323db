"""The heap of the C library, kept from step to step."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, from its malloc.h."""

_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc takes no more."""

_KEPT_BYTES = 2**31 - 1
"""mallopt takes an int."""


def keep_freed_memory() -> bool:
    """From now on this process keeps memory that it frees for itself; for steps on a CPU, each of which takes what the one before freed.

    Without it glibc hands the end of its heap and blocks of many MiB back, and the kernel clears thousands of pages for every step.
    Returns whether the C library could be told so: no other than glibc is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
