"""Blocks of a pair representation that is sharded over its rows.

The number of residues is a multiple of the number of ranks. A *block of columns* has the same
positions among the residues of every rank, so that all ranks receive equal parts of it.
"""

from __future__ import annotations

from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup


def own_rows(x: Tensor, axis: AxisGroup, *, dim: int) -> Tensor:
    """Return a view of this rank's part of a replicated tensor: [.., n, ..] -> [.., n/size, ..]."""
    length = x.shape[dim] // axis.size
    return x.narrow(dim, axis.rank * length, length)


def pair_mask(rows: Tensor, cols: Tensor) -> Tensor:
    """Return the mask of pairs [batch, N_row, N_col] from masks of residues [batch, n]."""
    return rows[:, :, None] * cols[:, None, :]


def take_columns(x: Tensor, cols: slice, axis: AxisGroup, *, dim: int = 2) -> Tensor:
    """Return a block of columns of x [.., N_res, ..], ordered by rank.

    Args:
        x: its columns are along `dim`.
        cols: positions among the residues of each rank.
        axis: the axis of the shards.
        dim: dim of the columns.

    Returns:
        [.., size * n, ..]; a view if the axis has size 1.
    """
    if axis.size == 1:
        return x.narrow(dim, cols.start, cols.stop - cols.start)
    by_rank = x.unflatten(dim, (axis.size, -1))
    return by_rank.narrow(dim + 1, cols.start, cols.stop - cols.start).flatten(dim, dim + 1)


def put_columns(x: Tensor, cols: slice, block: Tensor, axis: AxisGroup) -> None:
    """Write a block of columns to x [batch, N_row, N_res, c], as take_columns returns it."""
    _columns(x, cols, axis).copy_(block.unflatten(2, (axis.size, -1)))


def add_columns(x: Tensor, cols: slice, block: Tensor, axis: AxisGroup) -> None:
    """Add a block of columns to x [batch, N_row, N_res, c], as take_columns returns it."""
    _columns(x, cols, axis).add_(block.unflatten(2, (axis.size, -1)))


def _columns(x: Tensor, cols: slice, axis: AxisGroup) -> Tensor:
    """Return the view [batch, N_row, size, n, c] of a block of columns."""
    return x.unflatten(2, (axis.size, -1))[:, :, :, cols]
