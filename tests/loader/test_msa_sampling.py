"""Selection of rows: the query first, every row once, uniform."""

import numpy as np
import pytest

from openfold_opt.loader.transforms.msa_sampling import sample_rows


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
