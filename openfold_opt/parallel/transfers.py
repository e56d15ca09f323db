"""The three ways in which parts of a tensor travel along an axis, each with its adjoint.

A transfer maps the tensors of all ranks to tensors of all ranks. Lengths need not divide by the number of ranks: shards have
ceil(length / size) elements, the surplus at the end is zero when it is sent and dropped when it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup

# PyTorch renamed both in 2.12
_all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PendingWork:
    """A transfer under way."""

    work: Any
    """torch.distributed.Work, or None where nothing travels."""
    result: Callable[[], Tensor]
    """To be called after the work was waited for."""

    def wait(self) -> Tensor:
        """Wait (on a GPU: let the current stream wait) and give the result."""
        if self.work is not None:
            self.work.wait()
        return self.result()


class Transfer(Protocol):
    """One collective on one tensor."""

    name: str
    axis: AxisGroup

    def launch(self, x: Tensor) -> PendingWork:
        """Send this rank's part."""

    def adjoint(self, shape: torch.Size) -> Transfer:
        """The transfer that gradients take, for an x of this shape."""

    def sent_bytes(self, x: Tensor) -> int:
        """Bytes that this rank sends to other ranks."""


@dataclass(frozen=True, kw_only=True)
class AllGather:
    """[.., n/size, ..] -> [.., length, ..]: every rank gets all parts."""

    axis: AxisGroup
    dim: int
    length: int
    name: str = "all-gather"

    def launch(self, x: Tensor) -> PendingWork:
        x = x.contiguous()
        parts = x.new_empty((self.axis.size, *x.shape))
        work = _issue(_all_gather_single, parts, x, self.axis)
        return PendingWork(work=work, result=lambda: _join(parts, self.dim, self.length))

    def adjoint(self, shape: torch.Size) -> ReduceScatter:
        return ReduceScatter(axis=self.axis, dim=self.dim, length=self.length)

    def sent_bytes(self, x: Tensor) -> int:
        return (self.axis.size - 1) * x.nbytes


@dataclass(frozen=True, kw_only=True)
class ReduceScatter:
    """[.., length, ..] -> [.., n/size, ..]: every rank gets the sum over ranks of its part."""

    axis: AxisGroup
    dim: int
    length: int
    name: str = "reduce-scatter"

    def launch(self, x: Tensor) -> PendingWork:
        parts = _split(x, self.axis, self.dim)
        part = x.new_empty(parts.shape[1:])
        work = _issue(_reduce_scatter_single, part, parts, self.axis)
        return PendingWork(work=work, result=lambda: part)

    def adjoint(self, shape: torch.Size) -> AllGather:
        return AllGather(axis=self.axis, dim=self.dim, length=self.length)

    def sent_bytes(self, x: Tensor) -> int:
        return _sent_when_split(x, self.axis, self.dim)


@dataclass(frozen=True, kw_only=True)
class AllToAll:
    """[.., split, .., joined/size, ..] -> [.., split/size, .., joined, ..]: the sharded dim changes."""

    axis: AxisGroup
    split_dim: int
    join_dim: int
    join_length: int
    name: str = "all-to-all"

    def launch(self, x: Tensor) -> PendingWork:
        outgoing = _split(x, self.axis, self.split_dim)
        incoming = torch.empty_like(outgoing)
        work = _issue(dist.all_to_all_single, incoming, outgoing, self.axis)
        return PendingWork(
            work=work, result=lambda: _join(incoming, self.join_dim, self.join_length)
        )

    def adjoint(self, shape: torch.Size) -> AllToAll:
        return AllToAll(
            axis=self.axis,
            split_dim=self.join_dim,
            join_dim=self.split_dim,
            join_length=shape[self.split_dim],
        )

    def sent_bytes(self, x: Tensor) -> int:
        return _sent_when_split(x, self.axis, self.split_dim)


def pad_to_shards(x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
    """Zeros at the end of dim (counted from the front) until it divides by the ranks."""
    surplus = axis.shard_length(x.shape[dim]) * axis.size - x.shape[dim]
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, surplus)) if surplus else x


def _sent_when_split(x: Tensor, axis: AxisGroup, dim: int) -> int:
    """All parts but one go to others."""
    return (axis.size - 1) * axis.shard_length(x.shape[dim]) * (x.nbytes // max(x.shape[dim], 1))


def _issue(collective: Callable[..., Any], output: Tensor, sent: Tensor, axis: AxisGroup) -> Any:
    if sent.is_meta or sent.numel() == 0:
        return None
    work = collective(output.view(-1), sent.view(-1), group=axis.process_group, async_op=True)
    if axis.overlaps:
        return work
    work.wait()
    return None


def _split(x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
    """[.., n, ..] -> [size, .., n/size, ..], contiguous"""
    return pad_to_shards(x, axis, dim).unflatten(dim, (axis.size, -1)).movedim(dim, 0).contiguous()


def _join(parts: Tensor, dim: int, length: int) -> Tensor:
    """[size, .., n/size, ..] -> [.., length, ..]"""
    return parts.movedim(0, dim).flatten(dim, dim + 1).narrow(dim, 0, length)
