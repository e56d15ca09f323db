"""Collectives over one axis, with their gradients (Dynamic Axial Parallelism, FastFold).

Every rank of the axis computes the whole loss from its own copy of the parameters. A *replicated* tensor is the same on every rank,
of a *sharded* one each rank holds ceil(length / size) elements of one dim, the surplus at the end being padding. Each function is a
map from the tensors of all ranks to the tensors of all ranks, and its gradient is the adjoint of that map, no more:

    function       in          out         gradient
    scatter        replicated  sharded     zeros around this rank's part; nothing travels
    gather         sharded     replicated  reduce-scatter
    row_to_col     sharded     sharded     col_to_row
    col_to_row     sharded     sharded     row_to_col

So a rank's gradient of a parameter is that of the sum of all ranks' losses with respect to its own copy, and the true gradient is
the mean over the ranks of the axis, wherever the parameter was used, in sharded or in replicated work or in both: to the averaging of
gradients the ranks of a dap group are like ranks with samples of their own. No factor is placed by hand.

On an axis of size 1 all of them return their argument itself. The start_ forms begin what `arrive` of the result waits for.
`what` names the tensor in traces and tables.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.parallel.async_collective import AsyncCollective
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.transfers import AllGather, AllToAll, pad_to_shards


def scatter(x: Tensor, axis: AxisGroup, *, dim: int) -> Tensor:
    """Keep this rank's part of a replicated tensor: x [..., n, ...] -> [..., n/size, ...], zero where padded."""
    if axis.size == 1:
        return x
    length = axis.shard_length(x.shape[dim])
    # a copy, so that the whole is not kept for the sake of the part
    return (
        pad_to_shards(x, axis, dim)
        .narrow(dim, axis.rank * length, length)
        .clone(memory_format=torch.contiguous_format)
    )


def gather(x: Tensor, axis: AxisGroup, *, dim: int, length: int, what: str) -> Tensor:
    """Join the shards of all ranks: [..., n/size, ...] -> [..., length, ...], without the padding."""
    return start_gather(x, axis, dim=dim, length=length, what=what).wait()


def start_gather(
    x: Tensor, axis: AxisGroup, *, dim: int, length: int, what: str
) -> AsyncCollective:
    """gather, to be waited for by `arrive`."""
    return AsyncCollective(
        x, None if axis.size == 1 else AllGather(axis=axis, dim=dim, length=length), what=what
    )


def row_to_col(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_rows: int, what: str
) -> Tensor:
    """From row shards to column shards: [.., R/size, .., C, ..] -> [.., num_rows, .., C/size, ..]."""
    return start_row_to_col(
        x, axis, row_dim=row_dim, col_dim=col_dim, num_rows=num_rows, what=what
    ).wait()


def start_row_to_col(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_rows: int, what: str
) -> AsyncCollective:
    """row_to_col, to be waited for by `arrive`."""
    transfer = AllToAll(axis=axis, split_dim=col_dim, join_dim=row_dim, join_length=num_rows)
    return AsyncCollective(x, None if axis.size == 1 else transfer, what=what)


def col_to_row(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_cols: int, what: str
) -> Tensor:
    """From column shards to row shards: [.., R, .., C/size, ..] -> [.., R/size, .., num_cols, ..]."""
    return start_col_to_row(
        x, axis, row_dim=row_dim, col_dim=col_dim, num_cols=num_cols, what=what
    ).wait()


def start_col_to_row(
    x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int, num_cols: int, what: str
) -> AsyncCollective:
    """col_to_row, to be waited for by `arrive`."""
    transfer = AllToAll(axis=axis, split_dim=row_dim, join_dim=col_dim, join_length=num_cols)
    return AsyncCollective(x, None if axis.size == 1 else transfer, what=what)
