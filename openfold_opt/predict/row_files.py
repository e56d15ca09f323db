"""Matrices of a prediction, written in blocks of rows so that they are never whole in memory."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

LARGEST = float(np.finfo(np.float16).max)
"""Largest value of float16."""
_COPY_BYTES = 2**22
_ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of the member of an archive, so that equal arrays give equal files."""


class RowFile:
    """A float16 matrix in NumPy's format, written in blocks of rows (the RowSink of a forward).

    The rows are written at their places in a file, so that a full disk is an OSError. Writing to a
    memory-mapped file on a full disk would end the process.
    """

    def __init__(self, path: Path, *, num_rows: int, is_square: bool = True) -> None:
        """Prepare the file.

        Args:
            path: a temporary file, which is created with the first rows.
            num_rows: N_res.
            is_square: whether a row has N_res columns.
        """
        self.path = path
        self._num_rows = num_rows
        self._row_shape: tuple[int, ...] = (num_rows,) if is_square else ()
        self._has_row = np.zeros(num_rows, bool)
        self._file: IO[bytes] | None = None
        self._first_row_position = 0
        self.num_limited = 0
        """Values beyond the range of float16, which are replaced by its largest value."""

    def __call__(self, start: int, rows: np.ndarray) -> None:
        """Write rows [start, start + len(rows)) of a matrix [N_res, N_res, ...]; in any order.

        Raises:
            ValueError: the rows have another shape than expected, or a row was written before.
            OSError: the disk is full.
        """
        stop = start + rows.shape[0]
        is_inside = 0 <= start and stop <= self._num_rows
        has_shape = rows.shape[1:][: len(self._row_shape)] == self._row_shape
        if not is_inside or not has_shape or self._has_row[start:stop].any():
            raise ValueError(
                f"{self.path.name}: received rows {start} to {stop} of shape {rows.shape}; "
                f"expected each row of a matrix of {(self._num_rows, *self._row_shape)} once"
            )
        data = self._as_float16(rows)
        with naming_file(self.path):
            if self._file is None:
                self._open(rows.shape[1:])
            assert self._file is not None
            self._file.seek(self._first_row_position + start * data[0].nbytes)
            self._file.write(data.data)
        self._has_row[start:stop] = True

    def close(self) -> None:
        """Write everything to the disk.

        Raises:
            ValueError: rows are missing.
            OSError: the disk is full.
        """
        if self._file is None or not self._has_row.all():
            raise ValueError(
                f"{self.path.name}: received {self._has_row.sum()} of {self._num_rows} rows"
            )
        with naming_file(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def discard(self) -> None:
        """Remove the temporary file. Safe to call at any time."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                # On a full disk, closing writes the rest of the buffer in vain.
                self._file = None
        self.path.unlink(missing_ok=True)

    def _as_float16(self, rows: np.ndarray) -> np.ndarray:
        is_large = np.abs(rows) > LARGEST
        if is_large.any():
            self.num_limited += int(is_large.sum())
            rows = np.clip(rows, -LARGEST, LARGEST)
        return np.ascontiguousarray(rows, dtype=np.float16)

    def _open(self, row_shape: tuple[int, ...]) -> None:
        self._row_shape = row_shape
        self._file = open(self.path, "wb")
        header = {
            "descr": npy_format.dtype_to_descr(np.dtype(np.float16)),
            "fortran_order": False,
            "shape": (self._num_rows, *row_shape),
        }
        npy_format.write_array_header_1_0(self._file, header)
        self._first_row_position = self._file.tell()


def write_archive(path: Path, key: str, array: Path) -> None:
    """Write an archive (.npz) with one array, in blocks.

    The array is not compressed. Equal arrays give equal files.

    Args:
        path: the archive.
        key: name of the array in the archive.
        array: its .npy file.

    Raises:
        OSError: the disk is full.
    """
    member = zipfile.ZipInfo(f"{key}.npy", date_time=_ARCHIVE_DATE)
    with naming_file(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        # The header must have space for a size beyond 4 GiB before the size is known.
        with open(array, "rb") as source, archive.open(member, "w", force_zip64=True) as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)


class naming_file:
    """Context manager that adds the path of a file to an OSError without one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self._path)
