"""All-gather, reduce-scatter and all-to-all along an axis, each with its adjoint.

A transfer maps the tensors of all ranks to tensors on all ranks. Lengths need not be divisible by
the number of ranks: shards have ceil(length / size) elements. The padding at the end is sent as
zeros and dropped after it is received.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup

# PyTorch 2.12 renamed both functions.
_all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PendingWork:
    """A transfer in flight."""

    work: dist.Work | None
    """None if there is nothing left to wait for."""
    result: Callable[[], Tensor]
    """Returns the result. Call it after waiting for the work."""

    def wait(self) -> Tensor:
        """Wait for the work and return the result; on a GPU only the current stream waits."""
        if self.work is not None:
            self.work.wait()
        return self.result()


class Transfer(Protocol):
    """One collective on one tensor."""

    name: str
    axis: AxisGroup

    def launch(self, x: Tensor) -> PendingWork:
        """Start the collective with x as the input of this rank."""

    def adjoint(self, shape: torch.Size) -> Transfer:
        """Return the transfer of the gradient, for an input of this shape."""

    def sent_bytes(self, x: Tensor) -> int:
        """Return the number of bytes that this rank sends to other ranks."""


@dataclass(frozen=True, kw_only=True)
class AllGather:
    """[.., n/size, ..] -> [.., length, ..]: every rank receives all parts."""

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
    """[.., length, ..] -> [.., n/size, ..]: every rank receives the sum over ranks of its part."""

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
    """[.., split, .., join/size, ..] -> [.., split/size, .., join, ..]: the sharded dim changes."""

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
    """Pad the end of dim (non-negative) with zeros to a multiple of the number of ranks."""
    padding = axis.shard_length(x.shape[dim]) * axis.size - x.shape[dim]
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, padding)) if padding else x


def _sent_when_split(x: Tensor, axis: AxisGroup, dim: int) -> int:
    """Return the bytes of all parts except the one that this rank keeps."""
    return (axis.size - 1) * axis.shard_length(x.shape[dim]) * (x.nbytes // max(x.shape[dim], 1))


def _issue(
    collective: Callable[..., dist.Work | None], output: Tensor, sent: Tensor, axis: AxisGroup
) -> dist.Work | None:
    if sent.is_meta or sent.numel() == 0:
        return None
    work = collective(output.view(-1), sent.view(-1), group=axis.process_group, async_op=True)
    if axis.overlaps:
        return work
    work.wait()
    return None


def _split(x: Tensor, axis: AxisGroup, dim: int) -> Tensor:
    """Split dim by rank: [.., n, ..] -> [size, .., n/size, ..], contiguous."""
    return pad_to_shards(x, axis, dim).unflatten(dim, (axis.size, -1)).movedim(dim, 0).contiguous()


def _join(parts: Tensor, dim: int, length: int) -> Tensor:
    """Join the parts of all ranks: [size, .., n/size, ..] -> [.., length, ..]."""
    return parts.movedim(0, dim).flatten(dim, dim + 1).narrow(dim, 0, length)
