"""Splitting of work into chunks, so that the transfer of one overlaps with work on the next.

A chunk is the same part of the shard of every rank. Along a sharded dim, the chunk of a rank is a
slice. Along a replicated dim, a chunk consists of one slice per rank. The result computed from
chunk p of a replicated dim can therefore change its layout independently of the other chunks, and
becomes chunk p of the sharded dim. A chunk of a replicated dim keeps the order of its elements,
with the padding of the axis at the end: collectives treat it as a shorter tensor whose shards are
the chunks of the ranks. With a single chunk, the chunk is the tensor itself.

Independent samples, such as templates, are split along the batch dim into *groups* instead. Each
group passes through all operations separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from openfold_opt.parallel.async_collective import AsyncCollective
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import start_col_to_row, start_row_to_col
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


def chunk_batch(x: Tensor, axis: AxisGroup) -> tuple[Tensor, ...]:
    """Split independent samples into at most `batch` groups, without copies.

    [batch, ..] -> [batch_g, ..] each
    """
    return chunk_sharded(x, axis, dim=0)


def join_sharded(chunks: Iterable[Tensor], *, dim: int) -> Tensor:
    """Undo chunk_sharded; with dim 0, undo chunk_batch."""
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


class PendingChunks:
    """Chunks in flight. Iteration waits for one chunk after the other."""

    def __init__(self, collectives: Sequence[AsyncCollective]) -> None:
        self._collectives = collectives

    def __iter__(self) -> Iterator[Tensor]:
        return (collective.wait() for collective in self._collectives)


def chunks_to_col(
    chunks: Iterable[Tensor], axis: AxisGroup, *, num_rows: Iterable[int], what: str
) -> PendingChunks:
    """Start row_to_col of each chunk [batch, R_p/size, C_p, ..] before computing the next one.

    Args:
        chunks: computed lazily, one at a time.
        axis: the axis of the shards.
        num_rows: R_p of each chunk.
        what: name of the tensor in traces.
    """
    start = partial(start_row_to_col, axis=axis, row_dim=1, col_dim=2, what=what)
    return PendingChunks([start(chunk, num_rows=length) for chunk, length in zip(chunks, num_rows)])


def chunks_to_row(
    chunks: Iterable[Tensor], axis: AxisGroup, *, num_cols: Iterable[int], what: str
) -> PendingChunks:
    """Start col_to_row of each chunk [batch, R_p, C_p/size, ..] before computing the next one.

    Args:
        chunks: computed lazily, one at a time.
        axis: the axis of the shards.
        num_cols: C_p of each chunk.
        what: name of the tensor in traces.
    """
    start = partial(start_col_to_row, axis=axis, row_dim=1, col_dim=2, what=what)
    return PendingChunks([start(chunk, num_cols=length) for chunk, length in zip(chunks, num_cols)])


def relayout_with_work(
    chunks: Iterable[Tensor],
    work: Callable[[Tensor], Tensor],
    start: Callable[[Tensor], AsyncCollective],
) -> list[Tensor]:
    """Change the layout of each chunk and apply pointwise work to it, overlapping the two.

    The work may run before or after the change of layout. The last chunk is sent first and
    processed after it is received; the other chunks are processed before they are sent. So the
    transfer of each chunk overlaps with the work on another one.

    Args:
        chunks: the chunks of a tensor.
        work: acts on each position (all channels of one element) separately.
        start: starts the change of layout of a chunk.
    """
    *others, last = chunks
    early = start(last)
    collectives = [start(work(chunk)) for chunk in others]
    last = work(early.wait())
    return [*(collective.wait() for collective in collectives), last]
