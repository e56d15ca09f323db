"""Random choices of a pass: rows are uniform, and replacements have the configured frequencies."""

import numpy as np
import pytest

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.transforms.msa_draws import MASK_CLASS, mask_msa, sample_rows


@pytest.mark.parametrize(("num_rows", "num_clustered"), [(1, 1), (2, 2), (5, 5), (6, 5), (40, 5)])
def test_every_row_is_selected_once_and_the_query_is_a_center(num_rows, num_clustered):
    rows = sample_rows(num_rows, max_msa_clusters=5, rng=np.random.default_rng(0))
    assert rows.clustered[0] == 0
    assert len(rows.clustered) == num_clustered
    assert sorted([*rows.clustered, *rows.extra]) == list(range(num_rows))


def test_selected_rows_are_uniform():
    num_draws, num_rows, num_clusters = 4000, 21, 6
    center, first_extra = np.zeros(num_rows), np.zeros(num_rows)
    for seed in range(num_draws):
        rows = sample_rows(num_rows, max_msa_clusters=num_clusters, rng=np.random.default_rng(seed))
        center[rows.clustered] += 1
        first_extra[rows.extra[0]] += 1
    assert center[0] == num_draws
    np.testing.assert_allclose(
        center[1:] / num_draws, 5 / 20, atol=4 * np.sqrt(0.25 * 0.75 / num_draws)
    )
    np.testing.assert_allclose(
        first_extra[1:] / num_draws, 1 / 20, atol=4 * np.sqrt(0.05 * 0.95 / num_draws)
    )


def test_fractions_of_masked_positions_and_replacements():
    # All residues are class 0 and the profile has only class 20, so the class of a replacement
    # identifies its source.
    msa = np.zeros((20, 30), np.uint8)
    profile = np.zeros((30, 22), np.float32)
    profile[:, 20] = 1
    chosen, replaced = 0, np.zeros(23)
    for seed in range(1000):
        masked, bert_mask = mask_msa(
            msa, profile=profile, config=DataConfig(), rng=np.random.default_rng(seed)
        )
        assert not masked[~bert_mask].any()
        chosen += bert_mask.sum()
        replaced += np.bincount(masked[bert_mask], minlength=23)
    total = 1000 * msa.size
    assert chosen / total == pytest.approx(0.15, abs=4 * np.sqrt(0.15 * 0.85 / total))
    shares = replaced / chosen
    tolerance = 4 * np.sqrt(0.25 / chosen)
    assert shares[MASK_CLASS] == pytest.approx(0.7, abs=tolerance)
    assert shares[20] == pytest.approx(0.1, abs=tolerance)
    # Class 0 is unchanged or drawn uniformly; every other amino acid is drawn uniformly.
    assert shares[0] == pytest.approx(0.1 + 0.1 / 20, abs=tolerance)
    np.testing.assert_allclose(shares[1:20], 0.1 / 20, atol=tolerance)
    assert shares[21] == 0


def test_profile_draws_follow_the_profile_of_the_column():
    config = DataConfig(
        masked_msa_fraction=1.0,
        masked_msa_uniform_probability=0,
        masked_msa_profile_probability=1,
        masked_msa_same_probability=0,
    )
    profile = np.zeros((2, 22), np.float32)
    profile[0, [3, 21]] = 0.25, 0.75
    profile[1, 7] = 1
    masked, bert_mask = mask_msa(
        np.zeros((40_000, 2), np.uint8),
        profile=profile,
        config=config,
        rng=np.random.default_rng(0),
    )
    assert bert_mask.all()
    assert set(masked[:, 1]) == {7}
    assert set(masked[:, 0]) == {3, 21}
    assert (masked[:, 0] == 21).mean() == pytest.approx(0.75, abs=0.01)


def test_input_is_not_modified():
    msa = np.full((5, 5), 21, np.uint8)
    masked, _ = mask_msa(
        msa,
        profile=np.full((5, 22), 1 / 22, np.float32),
        config=DataConfig(masked_msa_fraction=1.0),
        rng=np.random.default_rng(0),
    )
    assert (msa == 21).all()
    assert not (masked == 21).all()
