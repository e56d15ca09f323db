"""Sparse deletion counts of an alignment: about one position in a few hundred has a deletion."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SparseDeletions:
    """Number of residues deleted before each aligned position, in compressed sparse rows.

    Entries indptr[r] .. indptr[r + 1] - 1 of `column` and `count` belong to row r. Counts reach
    several hundred.
    """

    indptr: np.ndarray
    """int64 [N_seq + 1]"""
    column: np.ndarray
    """integer [num_entries], 0 .. num_columns - 1"""
    count: np.ndarray
    """integer [num_entries], 1 or more"""
    num_columns: int

    @classmethod
    def from_dense(cls, dense: np.ndarray) -> "SparseDeletions":
        """Convert a matrix [N_seq, N_res]."""
        rows, columns = np.nonzero(dense)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=dense.shape[0]))])
        return cls(
            indptr=indptr,
            column=columns,
            count=dense[rows, columns].astype(np.int64),
            num_columns=dense.shape[1],
        )

    def entries(
        self, rows: np.ndarray, columns: slice
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the entries of the given rows in a range of columns.

        Returns:
            index into `rows`, column - columns.start, count; int64 each.
        """
        indptr = np.asarray(self.indptr, dtype=np.int64)
        lengths = indptr[rows + 1] - indptr[rows]
        row_index = np.repeat(np.arange(len(rows)), lengths)
        first_of_row = np.cumsum(lengths) - lengths
        entry = np.arange(row_index.size) - first_of_row[row_index] + indptr[rows][row_index]
        column, count = self.column[entry].astype(np.int64), self.count[entry].astype(np.int64)
        inside = (column >= columns.start) & (column < columns.stop)
        return row_index[inside], column[inside] - columns.start, count[inside]

    def take(self, rows: np.ndarray) -> "SparseDeletions":
        """Return the given rows, in this order, as a matrix of their own."""
        row_index, column, count = self.entries(rows, slice(0, self.num_columns))
        lengths = np.bincount(row_index, minlength=len(rows))
        return SparseDeletions(
            indptr=np.concatenate([[0], np.cumsum(lengths)]),
            column=column,
            count=count,
            num_columns=self.num_columns,
        )

    def dense(
        self, rows: np.ndarray, columns: slice, *, dtype: type[np.generic] = np.float32
    ) -> np.ndarray:
        """Return the given rows and range of columns as a matrix [len(rows), stop - start]."""
        row_index, column, count = self.entries(rows, columns)
        result = np.zeros((len(rows), columns.stop - columns.start), dtype)
        result[row_index, column] = count
        return result
