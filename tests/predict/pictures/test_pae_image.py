"""The reduced error map: block means, with few rows in memory."""

from __future__ import annotations

import numpy as np
import pytest

from openfold_opt.predict.pictures import downsample_pae


class Rows:
    """A matrix of which only rows can be read: entry (i, j) is i + j / 1000."""

    def __init__(self, size):
        self.shape = (size, size)
        self.most = 0

    def __getitem__(self, rows):
        numbers = np.arange(self.shape[0])[rows]
        self.most = max(self.most, len(numbers))
        return numbers[:, None] + np.arange(self.shape[0]) / 1000.0


def test_a_large_matrix_is_read_in_blocks():
    matrix = Rows(2050)
    image = downsample_pae(matrix, max_pixels=100)
    assert image.shape == (100, 100) and image.dtype == np.float32
    assert matrix.most <= 21
    centers = np.array(
        [np.arange(i * 2050 // 100, (i + 1) * 2050 // 100).mean() for i in range(100)]
    )
    np.testing.assert_allclose(image, centers[:, None] + centers / 1000.0, rtol=1e-5)


def test_a_small_matrix_keeps_its_values():
    pae = np.random.default_rng(0).uniform(0, 31, (50, 50)).astype(np.float16)
    assert np.array_equal(downsample_pae(pae), pae.astype(np.float32))


def test_half_precision_does_not_overflow():
    pae = np.full((3000, 3000), 31.75, np.float16)
    np.testing.assert_allclose(downsample_pae(pae, max_pixels=1), [[31.75]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (3,), (0, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected a square matrix"):
        downsample_pae(np.zeros(shape))
