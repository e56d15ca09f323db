"""The PAE matrix of a chain as a small image: tenths of an angstrom, for long chains by blocks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from openfold_opt.predict.file_names import PAE

MAX_PIXELS = 512
"""Largest width of the image. Up to this number of residues the image has every value."""
STEPS_PER_ANGSTROM = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class PaeImage:
    """PAE [num_pixels, num_pixels]; row i: error of all residues when residue i is aligned."""

    num_residues: int
    block: int
    """A pixel is the mean of block x block residues, fewer in the last row and column."""
    tenths: np.ndarray
    """uint16 [num_pixels, num_pixels], in tenths of an angstrom."""

    def planes(self) -> bytes:
        """Return the low bytes of all pixels, then the high bytes, which compress well."""
        values = self.tenths.astype("<u2")
        return (values & 0xFF).astype(np.uint8).tobytes() + (values >> 8).astype(np.uint8).tobytes()


def read_pae_image(path: Path, *, num_residues: int) -> PaeImage:
    """Read a PAE file (.npz with the key "pae") in blocks of rows.

    Args:
        path: the file.
        num_residues: N_res.

    Raises:
        ValueError: the file is not a matrix [N_res, N_res], or it is cut short.
        OSError: the file cannot be read.
    """
    block = -(-num_residues // MAX_PIXELS)
    num_pixels = -(-num_residues // block)
    tenths = np.empty((num_pixels, num_pixels), np.uint16)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{PAE}.npy") as file:
            for pixel, rows in enumerate(_row_blocks(file, num_residues, block)):
                tenths[pixel] = _row_of_pixels(rows, block)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is not the predicted aligned error of {num_residues} residues ({error}); "
            "remove the chain's .json file and run the prediction again"
        ) from error
    return PaeImage(num_residues=num_residues, block=block, tenths=tenths)


def _row_of_pixels(rows: np.ndarray, block: int) -> np.ndarray:
    """Return the mean of each block of columns. rows: [at most block, N_res]."""
    starts = np.arange(0, rows.shape[1], block)
    widths = np.diff(np.append(starts, rows.shape[1]))
    means = np.add.reduceat(rows.sum(axis=0), starts) / (widths * len(rows))
    if not np.isfinite(means).all() or means.min() < 0:
        raise ValueError("a value is not finite or negative")
    return np.rint(means * STEPS_PER_ANGSTROM)


def _row_blocks(file: IO[bytes], num_residues: int, block: int) -> Iterator[np.ndarray]:
    """Yield float64 [at most block, N_res] of a file in NumPy's format, from the first row on."""
    version = npy_format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"format {version} of NumPy, expected 1.0")
    shape, is_fortran, dtype = npy_format.read_array_header_1_0(file)
    if shape != (num_residues, num_residues) or is_fortran or dtype.kind != "f":
        raise ValueError(f"found shape {shape} and dtype {dtype}")
    for start in range(0, num_residues, block):
        num_rows = min(block, num_residues - start)
        data = file.read(num_rows * num_residues * dtype.itemsize)
        yield np.frombuffer(data, dtype).reshape(num_rows, num_residues).astype(np.float64)
