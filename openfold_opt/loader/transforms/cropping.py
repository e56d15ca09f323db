"""Uniform contiguous cropping; the benchmark does not use the supplement's biased scheme."""

import numpy as np


def draw_crop(num_res: int, *, crop_size: int, rng: np.random.Generator) -> slice:
    """A range of min(num_res, crop_size) residues, its start uniform over all that fit."""
    length = min(num_res, crop_size)
    start = int(rng.integers(0, num_res - length + 1))
    return slice(start, start + length)
