"""Collectives over one axis, with their gradients (Dynamic Axial Parallelism, FastFold).

Every rank of the axis computes the whole loss from its own copy of the parameters. A *replicated*
tensor is the same on every rank. Of a *sharded* tensor, each rank holds ceil(length / size)
elements along one dim; the end is padded. Each function maps the tensors of all ranks to tensors on
all ranks, and its gradient is the adjoint of that map:

    function       in          out         gradient
    scatter        replicated  sharded     this rank's part padded with zeros; no communication
    gather         sharded     replicated  reduce-scatter
    reduce_scatter replicated  sharded     all-gather
    row_to_col     sharded     sharded     col_to_row
    col_to_row     sharded     sharded     row_to_col

The gradient of a parameter on one rank is therefore the gradient of the sum of all ranks' losses
with respect to that rank's copy. The true gradient is the mean over the ranks of the axis, whether
the parameter was used in sharded work, in replicated work or in both. Gradient averaging treats the
ranks of a DAP group like ranks with different samples, and the model needs no scaling factors.

On an axis of size 1 every function returns its argument. The start_ functions start a collective
and return an AsyncCollective to wait for. `what` names the tensor in traces and tables.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.parallel.async_collective import AsyncCollective
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.transfers import AllGather, AllToAll, ReduceScatter, pad_to_shards


def scatter(x: Tensor, axis: AxisGroup, *, dim: int) -> Tensor:
    """Return this rank's part of a replicated tensor: [..., n, ...] -> [..., n/size, ...].

    Padding is zero.
    """
    if axis.size == 1:
        return x
    length = axis.shard_length(x.shape[dim])
    # Copy, so that the part does not keep the whole tensor in memory.
    return (
        pad_to_shards(x, axis, dim)
        .narrow(dim, axis.rank * length, length)
        .clone(memory_format=torch.contiguous_format)
    )


def gather(x: Tensor, axis: AxisGroup, *, dim: int, length: int, what: str) -> Tensor:
    """Join the shards of all ranks without padding: [..., n/size, ...] -> [..., length, ...]."""
    return start_gather(x, axis, dim=dim, length=length, what=what).wait()


def start_gather(
    x: Tensor, axis: AxisGroup, *, dim: int, length: int, what: str
) -> AsyncCollective:
    """Start `gather`."""
    return AsyncCollective(
        x, None if axis.size == 1 else AllGather(axis=axis, dim=dim, length=length), what=what
    )


def start_reduce_scatter(x: Tensor, axis: AxisGroup, *, dim: int, what: str) -> AsyncCollective:
    """Start to sum x over the ranks; each rank receives its part.

    [.., n, ..] -> [.., n/size, ..]
    """
    transfer = ReduceScatter(axis=axis, dim=dim, length=x.shape[dim])
    return AsyncCollective(x, None if axis.size == 1 else transfer, what=what)


def row_to_col(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_rows: int, what: str
) -> Tensor:
    """Change row shards to column shards.

    [.., R/size, .., C, ..] -> [.., num_rows, .., C/size, ..]
    """
    return start_row_to_col(
        x, axis, row_dim=row_dim, col_dim=col_dim, num_rows=num_rows, what=what
    ).wait()


def start_row_to_col(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_rows: int, what: str
) -> AsyncCollective:
    """Start `row_to_col`."""
    transfer = AllToAll(axis=axis, split_dim=col_dim, join_dim=row_dim, join_length=num_rows)
    return AsyncCollective(x, None if axis.size == 1 else transfer, what=what)


def col_to_row(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_cols: int, what: str
) -> Tensor:
    """Change column shards to row shards.

    [.., R, .., C/size, ..] -> [.., R/size, .., num_cols, ..]
    """
    return start_col_to_row(
        x, axis, row_dim=row_dim, col_dim=col_dim, num_cols=num_cols, what=what
    ).wait()


def start_col_to_row(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_cols: int, what: str
) -> AsyncCollective:
    """Start `col_to_row`."""
    transfer = AllToAll(axis=axis, split_dim=row_dim, join_dim=col_dim, join_length=num_cols)
    return AsyncCollective(x, None if axis.size == 1 else transfer, what=what)
