"""Splitting of work into chunks, so that the transfer of one overlaps with work on the next.

A chunk is the same part of the shard of every rank. Along a sharded dim, the chunk of a rank is a
slice. Along a replicated dim, a chunk consists of one slice per rank. The result computed from
chunk p of a replicated dim can therefore change its layout independently of the other chunks, and
becomes chunk p of the sharded dim. A chunk of a replicated dim keeps the order of its elements,
with the padding of the axis at the end: collectives treat it as a shorter tensor whose shards are
the chunks of the ranks. With a single chunk, the chunk is the tensor itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.transfers import pad_to_shards


def chunk_sharded(x: Tensor, axis: AxisGroup, *, dim: int) -> tuple[Tensor, ...]:
    """Split the shard of this rank into views: [.., n/size, ..] -> [.., n_p/size, ..] each."""
    return (x,) if axis.size == 1 or axis.num_chunks == 1 else x.chunk(axis.num_chunks, dim)


def chunk_replicated(x: Tensor, axis: AxisGroup, *, dim: int) -> tuple[Tensor, ...]:
    """Split a replicated dim into chunks: [.., n, ..] -> [.., n_p, ..] each."""
    lengths = chunk_lengths(x.shape[dim], axis)
    if len(lengths) == 1:
        return (x,)
    by_rank = (
        pad_to_shards(x, axis, dim).unflatten(dim, (axis.size, -1)).chunk(axis.num_chunks, dim + 1)
    )
    return tuple(
        chunk.flatten(dim, dim + 1).narrow(dim, 0, length)
        for chunk, length in zip(by_rank, lengths)
    )


def join_sharded(chunks: Iterable[Tensor], *, dim: int) -> Tensor:
    """Undo chunk_sharded."""
    chunks = list(chunks)
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim)


def join_replicated(chunks: Iterable[Tensor], axis: AxisGroup, *, dim: int) -> Tensor:
    """Undo chunk_replicated."""
    chunks = list(chunks)
    if len(chunks) == 1:
        return chunks[0]
    by_rank = [pad_to_shards(chunk, axis, dim).unflatten(dim, (axis.size, -1)) for chunk in chunks]
    return (
        torch.cat(by_rank, dim + 1)
        .flatten(dim, dim + 1)
        .narrow(dim, 0, sum(chunk.shape[dim] for chunk in chunks))
    )


def chunk_lengths(length: int, axis: AxisGroup) -> list[int]:
    """Return the lengths n_p of the chunks of a replicated dim of `length`.

    Shards of one element give a single chunk.
    """
    if axis.size == 1:
        return [length]
    shard = axis.shard_length(length)
    filled = [min(max(length - rank * shard, 0), shard) for rank in range(axis.size)]
    step = -(-shard // axis.num_chunks)
    return [sum(min(max(n - start, 0), step) for n in filled) for start in range(0, shard, step)]
