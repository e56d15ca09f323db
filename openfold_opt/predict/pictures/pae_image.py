"""Reduce a predicted aligned error to the size of a picture, in constant memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

PAE_KEY = "pae"
"""Name of the matrix in an .npz file."""
MAX_PIXELS = 1000


def downsample_pae(source: np.ndarray | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return block means of a predicted aligned error, [n, n] float32 with n <= max_pixels.

    A matrix of at most `max_pixels` rows is returned as it is. The rows of a file are read a few at
    a time, so the memory is that of N_res / max_pixels + 1 rows and of the result.

    Args:
        source: [N_res, N_res], angstrom, or the file of one: .npy, or .npz with the key "pae".
        max_pixels: upper limit of n.

    Raises:
        ValueError: the matrix is not square, or the file is not complete.
        OSError: the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        check_square(source.shape, "the predicted aligned error")
        return _block_means(_blocks_of(source, max_pixels), len(source), max_pixels)
    with _open_matrix(source) as matrix:
        return _block_means(matrix.blocks(max_pixels), matrix.num_rows, max_pixels)


def block_starts(num_residues: int, max_pixels: int) -> np.ndarray:
    """Return the first index of each block: int64 [n]. The sizes differ by at most 1."""
    num_blocks = min(num_residues, max_pixels)
    return np.arange(num_blocks) * num_residues // num_blocks


def check_square(shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError if a shape is not that of a square matrix."""
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"{name} has the shape {shape}; expected a square matrix")


def _block_means(blocks: Iterator[np.ndarray], num_residues: int, max_pixels: int) -> np.ndarray:
    """Average the columns of each block of rows, which is one row of the result."""
    starts = block_starts(num_residues, max_pixels)
    widths = np.diff(np.append(starts, num_residues))
    image = np.empty((len(starts), len(starts)), np.float32)
    for row, block in enumerate(blocks):
        column_sums = block.sum(axis=0, dtype=np.float32)
        image[row] = np.add.reduceat(column_sums, starts) / (widths * len(block))
    return image


def _blocks_of(matrix: np.ndarray, max_pixels: int) -> Iterator[np.ndarray]:
    edges = np.append(block_starts(len(matrix), max_pixels), len(matrix))
    for start, stop in zip(edges[:-1], edges[1:]):
        yield matrix[start:stop]


class _StoredMatrix:
    """A square matrix in NumPy's format, read from its beginning to its end."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        """Read the header. Raises ValueError if this is not a square matrix."""
        self._stream, self._path = stream, path
        npy_format.read_magic(stream)
        shape, is_fortran, self._dtype = npy_format.read_array_header_1_0(stream)
        check_square(shape, str(path))
        if is_fortran:
            raise ValueError(f"{path} stores columns one after another; expected rows")
        self.num_rows = shape[0]

    def blocks(self, max_pixels: int) -> Iterator[np.ndarray]:
        """Yield the rows of one pixel after another."""
        edges = np.append(block_starts(self.num_rows, max_pixels), self.num_rows)
        for num_rows in np.diff(edges).tolist():
            num_bytes = num_rows * self.num_rows * self._dtype.itemsize
            content = self._stream.read(num_bytes)
            if len(content) != num_bytes:
                raise ValueError(
                    f"{self._path} ends before its last row; predict the chain again (--overwrite)"
                )
            yield np.frombuffer(content, self._dtype).reshape(num_rows, self.num_rows)


@contextmanager
def _open_matrix(path: Path) -> Iterator[_StoredMatrix]:
    if path.suffix != ".npz":
        with open(path, "rb") as stream:
            yield _StoredMatrix(stream, path)
        return
    with zipfile.ZipFile(path) as archive:
        name = f"{PAE_KEY}.npy"
        if name not in archive.namelist():
            found = ", ".join(archive.namelist()) or "nothing"
            raise ValueError(f"{path} has {found}; expected {name}")
        with archive.open(name) as stream:
            yield _StoredMatrix(stream, path)
