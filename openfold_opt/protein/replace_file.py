"""Write a file under a temporary name, then rename it, so that it is always complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path, mode: str = "w", *, scratch_dir: Path | None = None) -> Iterator[IO[Any]]:
    """Open `<path>.tmp`, and rename it to path after the block, when its content is on the disk.

    If an error occurs, the temporary file is removed and path stays as it was.

    Args:
        path: the file to create or to replace.
        mode: "w" for UTF-8 text or "wb".
        scratch_dir: folder for the temporary file, on the same file system; None: the folder of
            path.

    Raises:
        OSError: The file cannot be written, for example because the disk is full. Its `filename`
            is always set.
    """
    temporary = (scratch_dir or path.parent) / (path.name + TEMPORARY_SUFFIX)
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
