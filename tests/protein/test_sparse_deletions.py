"""Sparse deletions reproduce the matrix from which they were created."""

import numpy as np
import pytest

from openfold_opt.protein.sparse_deletions import SparseDeletions


@pytest.mark.parametrize("rows", [[0], [4, 0, 4], [], list(range(9))])
@pytest.mark.parametrize("columns", [slice(0, 7), slice(2, 5)])
def test_dense_returns_the_rows_and_columns_of_the_matrix(rows, columns):
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 800, (9, 7)) * (rng.random((9, 7)) < 0.3)
    rows = np.array(rows, dtype=np.int64)
    found = SparseDeletions.from_dense(dense).dense(rows, columns)
    assert found.dtype == np.float32
    assert np.array_equal(found, dense[rows][:, columns])


def test_narrow_column_types_do_not_overflow():
    deletions = SparseDeletions(
        indptr=np.array([0, 1], np.int64),
        column=np.array([65_000], np.uint16),
        count=np.array([900], np.int32),
        num_columns=65_100,
    )
    assert deletions.dense(np.array([0]), slice(64_990, 65_010))[0, 10] == 900


def test_entries_in_a_range_of_columns():
    dense = np.random.default_rng(5).integers(0, 400, (9, 12)) * (
        np.random.default_rng(6).random((9, 12)) < 0.4
    )
    row, column, count = SparseDeletions.from_dense(dense).entries(np.arange(9), slice(3, 10))
    found = np.zeros((9, 7), np.int64)
    found[row, column] = count
    np.testing.assert_array_equal(found, dense[:, 3:10])
    assert len(row) == np.count_nonzero(dense[:, 3:10])
