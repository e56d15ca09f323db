"""Padding of model features to the sizes of a batch."""

import numpy as np
import pytest

from openfold_opt.loader.reference.padding import pad_features, pad_passes

SIZES = {"N_res": 4, "N_clust": 3, "N_extra": 2, "N_templ": 2}


def test_features_are_padded_with_zeros_at_the_end():
    padded = pad_features(
        {"true_msa": np.full((2, 3), 7, np.uint8), "resolution": np.array(1.5)}, sizes=SIZES
    )
    assert padded["true_msa"].dtype == np.int64
    assert padded["true_msa"].tolist() == [[7, 7, 7, 0], [7, 7, 7, 0], [0, 0, 0, 0]]
    assert padded["resolution"].dtype == np.float32 and padded["resolution"] == 1.5


def test_too_large_feature_is_an_error():
    with pytest.raises(
        ValueError, match=r"feature aatype: found shape \[5\], expected at most \[4\]"
    ):
        pad_features({"aatype": np.zeros(5, np.int64)}, sizes=SIZES)


def test_passes_are_stacked():
    passes = [{"msa_row_mask": np.ones(number, np.float32)} for number in (1, 3)]
    assert pad_passes(passes, sizes=SIZES)["msa_row_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
