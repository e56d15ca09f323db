"""Deletions of an alignment, sparse: real alignments have one in a few hundred positions."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SparseDeletions:
    """Number of residues deleted before each aligned position, compressed by rows.

    Entries indptr[r] .. indptr[r + 1] - 1 of `column` and `count` belong to row r. Counts reach several hundred.
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
        """From the matrix [N_seq, N_res]."""
        rows, columns = np.nonzero(dense)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=dense.shape[0]))])
        return cls(
            indptr=indptr,
            column=columns,
            count=dense[rows, columns].astype(np.int64),
            num_columns=dense.shape[1],
        )

    def entries_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Entries of the given rows: (place in `rows`, column, count), int64 each."""
        indptr = np.asarray(self.indptr, dtype=np.int64)
        lengths = indptr[rows + 1] - indptr[rows]
        place = np.repeat(np.arange(len(rows)), lengths)
        first_of_place = np.cumsum(lengths) - lengths
        entry = np.arange(place.size) - first_of_place[place] + indptr[rows][place]
        return place, self.column[entry].astype(np.int64), self.count[entry].astype(np.int64)

    def entries_in(self, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Entries of all rows in a range of columns: (row, column - columns.start, count), int64 each."""
        row, column, count = self.entries_of(np.arange(len(self.indptr) - 1))
        inside = (column >= columns.start) & (column < columns.stop)
        return row[inside], column[inside] - columns.start, count[inside]

    def dense(self, rows: np.ndarray, columns: slice) -> np.ndarray:
        """The matrix of some rows and a range of columns, float32 [len(rows), stop - start]."""
        place, column, count = self.entries_of(rows)
        inside = (column >= columns.start) & (column < columns.stop)
        result = np.zeros((len(rows), columns.stop - columns.start), np.float32)
        result[place[inside], column[inside] - columns.start] = count[inside]
        return result
