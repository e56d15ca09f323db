"""Write a file under a temporary name, then rename it, so that it is always complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path, *, scratch_dir: Path | None = None) -> Iterator[BinaryIO]:
    """Open `<path>.tmp` for bytes, and rename it to path after the block.

    Its content is on the disk before it is renamed. If an error occurs, the temporary file is
    removed and path stays as it was.

    Args:
        path: the file to create or to replace.
        scratch_dir: folder for the temporary file, on the same file system; None: the folder of
            path.

    Raises:
        OSError: The file cannot be written, for example because the disk is full. Its `filename`
            is always set.
    """
    temporary = (scratch_dir or path.parent) / (path.name + TEMPORARY_SUFFIX)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
