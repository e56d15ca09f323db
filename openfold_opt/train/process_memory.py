"""Memory management of the process: Python's garbage collector and glibc's heap."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, from its malloc.h."""

_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""The largest value that glibc accepts."""

_KEPT_BYTES = 2**31 - 1
"""Freed bytes at the end of the heap that are kept: the largest value that mallopt accepts."""


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Disable automatic garbage collection, and exclude existing objects from explicit collections.

    A collection in the middle of a step would delay the GPU of one rank and thereby all ranks.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def keep_freed_memory() -> bool:
    """Make the process keep freed memory for reuse. Return whether the C library supports this.

    By default, glibc returns the end of its heap and large blocks to the operating system. Each
    training step on a CPU then allocates them again, and the operating system clears thousands of
    pages. Only glibc has these settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    )


def return_freed_memory() -> bool:
    """Make the process return freed tensors to the operating system. Return whether it can.

    glibc raises the size from which it does so whenever a larger block is freed. The freed blocks
    of a prediction, which become smaller and larger with the chain, would stay in its heap.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
