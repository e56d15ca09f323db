"""Collectives over one axis, with their gradients (Dynamic Axial Parallelism, FastFold).

Convention: the loss is computed alike by every rank of the axis. A *replicated* tensor is the same
on every rank and carries its whole gradient there; a *sharded* tensor holds 1/size of one dim, and
carries the gradient of that part. Each function says which of the two goes in and comes out:

    function            in          out         gradient
    scatter             replicated  sharded     all-gather
    gather              sharded     replicated  this rank's slice
    gather_for_shards   sharded     replicated  reduce-scatter (each rank uses the result for its own shard)
    row_to_col          sharded     sharded     col_to_row
    col_to_row          sharded     sharded     row_to_col
    sum_over            partial     replicated  identity
    enter_sharded       replicated  replicated  sum (each rank uses the result for its own shard)

On an axis of size 1 all of them return their argument itself.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup


def scatter(x: Tensor, axis: AxisGroup, *, dim: int) -> Tensor:
    """Keep this rank's part of a replicated tensor: x [..., n, ...] -> [..., n/size, ...]."""
    if axis.size == 1:
        return x
    _check_divisible(x, axis, dim)
    return _Scatter.apply(x, axis, dim)


def gather(x: Tensor, axis: AxisGroup, *, dim: int) -> Tensor:
    """Join the shards of all ranks for a use that is the same everywhere: [..., n/size, ...] -> [..., n, ...]."""
    if axis.size == 1:
        return x
    return _Gather.apply(x, axis, dim)


def gather_for_shards(x: Tensor, axis: AxisGroup, *, dim: int) -> Tensor:
    """Join the shards of all ranks where each rank needs the whole for its own part of the work.

    [..., n/size, ...] -> [..., n, ...]; the gradients that the ranks return are summed.
    """
    if axis.size == 1:
        return x
    return _GatherForShards.apply(x, axis, dim)


def row_to_col(x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int) -> Tensor:
    """From row shards to column shards: [.., R/size, .., C, ..] -> [.., R, .., C/size, ..]."""
    if axis.size == 1:
        return x
    _check_divisible(x, axis, col_dim)
    return _AllToAll.apply(x, axis, col_dim, row_dim)


def col_to_row(x: Tensor, axis: AxisGroup, *, row_dim: int, col_dim: int) -> Tensor:
    """From column shards to row shards: [.., R, .., C/size, ..] -> [.., R/size, .., C, ..]."""
    if axis.size == 1:
        return x
    _check_divisible(x, axis, row_dim)
    return _AllToAll.apply(x, axis, row_dim, col_dim)


def sum_over(x: Tensor, axis: AxisGroup) -> Tensor:
    """Sum partial results of the ranks; same shape, replicated."""
    if axis.size == 1:
        return x
    return _SumOver.apply(x, axis)


def enter_sharded(x: Tensor, axis: AxisGroup) -> Tensor:
    """Hand a replicated tensor to work that is sharded: the identity, whose gradient is summed."""
    if axis.size == 1:
        return x
    return _EnterSharded.apply(x, axis)


def _check_divisible(x: Tensor, axis: AxisGroup, dim: int) -> None:
    if x.shape[dim] % axis.size:
        raise ValueError(
            f"dim {dim} of a tensor {tuple(x.shape)} is not divisible by the {axis.size} ranks of axis "
            f"{axis.name!r}; pad it to a multiple of {axis.size}"
        )


def _slice(x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
    return x.chunk(axis.size, dim)[axis.rank].contiguous()


def _all_gather(x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
    parts = [x.new_empty(x.shape) for _ in range(axis.size)]
    dist.all_gather(parts, x.contiguous(), group=axis.process_group)
    return torch.cat(parts, dim)


def _reduce_scatter(x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
    parts = [part.contiguous() for part in x.chunk(axis.size, dim)]
    shard = torch.empty_like(parts[0])
    dist.reduce_scatter(shard, parts, group=axis.process_group)
    return shard


def _all_reduce(x: Tensor, axis: AxisGroup) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=axis.process_group)
    return total


def _all_to_all(x: Tensor, axis: AxisGroup, split_dim: int, join_dim: int) -> Tensor:
    outgoing = torch.stack(x.chunk(axis.size, split_dim))
    incoming = torch.empty_like(outgoing)
    dist.all_to_all_single(incoming, outgoing, group=axis.process_group)
    return torch.cat(incoming.unbind(0), join_dim)


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return _slice(x, axis, dim)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _all_gather(grad, ctx.axis, ctx.dim), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return _all_gather(x, axis, dim)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _slice(grad, ctx.axis, ctx.dim), None, None


class _GatherForShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return _all_gather(x, axis, dim)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _reduce_scatter(grad, ctx.axis, ctx.dim), None, None


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, axis: AxisGroup, split_dim: int, join_dim: int) -> Tensor:
        ctx.axis, ctx.split_dim, ctx.join_dim = axis, split_dim, join_dim
        return _all_to_all(x, axis, split_dim, join_dim)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _all_to_all(grad, ctx.axis, ctx.join_dim, ctx.split_dim), None, None, None


class _SumOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, axis: AxisGroup) -> Tensor:
        return _all_reduce(x, axis)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


class _EnterSharded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, axis: AxisGroup) -> Tensor:
        ctx.axis = axis
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _all_reduce(grad, ctx.axis), None
