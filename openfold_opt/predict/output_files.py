"""Files of one chain, written under temporary names and renamed when the chain is complete.

With one set of weights a chain has

    STEM.cif              the structure (structure_file.py)
    STEM_pae.npy          float16 [N_res, N_res]: predicted aligned error in angstrom
    STEM_distogram.npy    float16 [N_res, N_res, num_bins]: logits, on request
    STEM.png              a picture of the best structure (picture_file.py)
    STEM.json             its scores (chain_record.py), written last: the chain is finished

With several, STEM.cif is the best structure, and every set of weights has these files (without
json) with the stem STEM_rank_1_WEIGHTS, STEM_rank_2_WEIGHTS, ...
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from openfold_opt.predict.file_names import ranked_stem
from openfold_opt.protein.shard_format import write_atomically

TEMPORARY_SUFFIX = ".tmp"
STRUCTURE, PAE, DISTOGRAM, PICTURE = "structure", "pae", "distogram", "picture"
"""Kinds of files of a prediction."""
SUFFIXES = {STRUCTURE: ".cif", PAE: "_pae.npy", DISTOGRAM: "_distogram.npy", PICTURE: ".png"}
FULL_DISK_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left on the device, the quota is used up, or the file would be too large."""


class RowFile:
    """A float16 matrix in NumPy's format, written in blocks of rows (the RowSink of a forward).

    The rows are written at their places in a file, so that a full disk is an OSError. Writing to a
    memory-mapped file on a full disk would end the process.
    """

    def __init__(self, path: Path, *, num_rows: int) -> None:
        """path: a temporary file, which is created with the first rows. num_rows: N_res."""
        self.path = path
        self._num_rows = num_rows
        self._has_row = np.zeros(num_rows, bool)
        self._file: IO[bytes] | None = None
        self._first_row_position = 0

    def __call__(self, start: int, rows: np.ndarray) -> None:
        """Write rows [start, start + len(rows)) of a matrix [N_res, N_res, ...]; in any order.

        Raises:
            ValueError: the matrix is not square, or a row was written before.
            OSError: the disk is full.
        """
        stop = start + rows.shape[0]
        is_inside = 0 <= start and stop <= self._num_rows and rows.shape[1] == self._num_rows
        if not is_inside or self._has_row[start:stop].any():
            raise ValueError(
                f"{self.path.name}: received rows {start} to {stop} of shape {rows.shape}; "
                f"expected each row of a matrix of {self._num_rows} x {self._num_rows} once"
            )
        data = np.ascontiguousarray(rows, dtype=np.float16)
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

    def _open(self, row_shape: tuple[int, ...]) -> None:
        self._file = open(self.path, "wb")
        header = {
            "descr": npy_format.dtype_to_descr(np.dtype(np.float16)),
            "fortran_order": False,
            "shape": (self._num_rows, *row_shape),
        }
        npy_format.write_array_header_1_0(self._file, header)
        self._first_row_position = self._file.tell()


class ChainFiles:
    """The files of one chain while it is predicted."""

    def __init__(self, folder: Path, stem: str, weights: Sequence[str]) -> None:
        """weights: names of the sets of weights, in the order of the command line."""
        self._folder, self._stem, self._weights = folder, stem, tuple(weights)
        self._rows: dict[tuple[str, str], RowFile] = {}

    def row_file(self, weights: str, kind: str, *, num_rows: int) -> RowFile:
        """Return the sink for the PAE or the distogram of one set of weights."""
        name = f"{self._stem}.{weights}{SUFFIXES[kind]}{TEMPORARY_SUFFIX}"
        file = RowFile(self._folder / name, num_rows=num_rows)
        self._rows[weights, kind] = file
        return file

    def finish(self, ranking: Sequence[str], structures: dict[str, str]) -> list[dict[str, str]]:
        """Write the structures, give all files their names, and return the names by kind.

        Args:
            ranking: names of the weights, best first.
            structures: content of the mmCIF file for each.

        Returns:
            Names of the files by kind, best first.

        Raises:
            OSError: the disk is full.
        """
        for rows in self._rows.values():
            rows.close()
        is_one = len(self._weights) == 1
        names = []
        for rank, weights in enumerate(ranking, start=1):
            stem = self._stem if is_one else ranked_stem(self._stem, rank, weights)
            files = {STRUCTURE: stem + SUFFIXES[STRUCTURE]}
            self._write(files[STRUCTURE], structures[weights])
            for kind in (PAE, DISTOGRAM):
                rows = self._rows.pop((weights, kind), None)
                if rows is not None:
                    files[kind] = stem + SUFFIXES[kind]
                    os.replace(rows.path, self._folder / files[kind])
            names.append(files)
        if not is_one:
            self._write(self._stem + SUFFIXES[STRUCTURE], structures[ranking[0]])
        return names

    @property
    def best_structure(self) -> str:
        """Name of the file with the best structure."""
        return self._stem + SUFFIXES[STRUCTURE]

    def discard(self) -> None:
        """Remove temporary files."""
        for rows in self._rows.values():
            rows.discard()
        self._rows.clear()

    def _write(self, name: str, text: str) -> None:
        write_atomically(self._folder / name, text.encode())


class naming_file:
    """Context manager that adds the path of a file to an OSError without one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self._path)


def is_full_disk(error: BaseException) -> bool:
    """Return whether an exception or one of its causes is a full disk."""
    return any(
        isinstance(cause, OSError) and cause.errno in FULL_DISK_NUMBERS for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
