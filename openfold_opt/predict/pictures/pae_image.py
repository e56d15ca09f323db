"""Reduce a predicted aligned error to the size of a picture, in constant memory."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Matrix(Protocol):
    """A matrix of which rows can be read: an array, in memory or mapped from a file."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return some rows."""


def downsample_pae(pae: Matrix, *, max_pixels: int = 1000) -> np.ndarray:
    """Return block means of a predicted aligned error, [n, n] float32 with n <= max_pixels.

    A matrix of at most `max_pixels` rows keeps its values. The rows are read a few at a time, so
    the memory is that of N_res / max_pixels + 1 rows and of the result.

    Args:
        pae: [N_res, N_res], angstrom, such as `np.load(file, mmap_mode="r")`.
        max_pixels: upper limit of n.

    Raises:
        ValueError: the matrix is not square.
    """
    if len(pae.shape) != 2 or pae.shape[0] != pae.shape[1] or pae.shape[0] == 0:
        raise ValueError(
            f"the predicted aligned error has the shape {pae.shape}; expected a square matrix"
        )
    num_residues = pae.shape[0]
    starts = block_starts(num_residues, max_pixels)
    stops = np.append(starts[1:], num_residues)
    image = np.empty((len(starts), len(starts)), np.float32)
    for pixel, (start, stop) in enumerate(zip(starts, stops)):
        column_sums = pae[start:stop].sum(axis=0, dtype=np.float32)
        sums = np.add.reduceat(column_sums, starts)
        image[pixel] = sums / ((stops - starts) * (stop - start))
    return image


def block_starts(num_residues: int, max_blocks: int) -> np.ndarray:
    """Return the first index of each block of residues: int64 [n], n <= max_blocks.

    The sizes of the blocks differ by at most 1.
    """
    num_blocks = min(num_residues, max_blocks)
    return np.arange(num_blocks) * num_residues // num_blocks
