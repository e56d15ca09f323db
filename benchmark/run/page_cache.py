"""Drop the pages of a data set from the page cache of this node, without root privileges.

MLPerf requires that a run starts without cached data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.shard_format import INDEX_FILE_NAME


def data_files(data_dir: Path) -> list[Path]:
    """Return the index of a data set and the shards that it lists."""
    return [
        data_dir / INDEX_FILE_NAME,
        *(data_dir / shard.name for shard in ShardIndex.load(data_dir).shards),
    ]


def clear_page_cache(paths: Iterable[Path]) -> bool:
    """Ask the kernel to drop the cached pages of some files.

    Returns False if the system has no posix_fadvise or a file cannot be opened, else True.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (PermissionError, FileNotFoundError):
            return False
        try:
            # Dirty pages cannot be dropped.
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
