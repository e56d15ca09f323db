"""Start cold: drop a data set's pages from this node's page cache, without reading or needing root."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def clear_page_cache(paths: Iterable[Path]) -> bool:
    """Ask the kernel to drop the cached pages of some files.

    True if all files were done; False if the system cannot (no posix_fadvise) or a file refuses.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (PermissionError, FileNotFoundError):
            return False
        try:
            # pages that wait to be written cannot be dropped
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
