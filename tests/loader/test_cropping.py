"""Crops are uniform over all positions that fit."""

import numpy as np
import pytest

from openfold_opt.loader.transforms.cropping import draw_crop


@pytest.mark.parametrize("num_res", [1, 9, 10])
def test_a_short_chain_is_kept_whole(num_res):
    assert draw_crop(num_res, crop_size=10, rng=np.random.default_rng(0)) == slice(0, num_res)


def test_starts_are_uniform():
    starts = [
        draw_crop(14, crop_size=10, rng=np.random.default_rng(seed)).start for seed in range(5000)
    ]
    counts = np.bincount(starts)
    assert len(counts) == 5
    np.testing.assert_allclose(counts / 5000, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 5000))
