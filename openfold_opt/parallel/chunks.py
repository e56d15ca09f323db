"""Work in pieces, so that the result of one travels while the next is computed.

A piece is the same part of every rank's shard. Of the dim that is spread a rank's piece is a slice; of a dim that it holds whole the
piece is made of one slice for each rank. So what is computed for the piece number p of a whole dim changes its layout on its own, and
arrives as piece p of the spread dim. The piece of a whole dim keeps its elements in order, the axis's padding at the end: to the
collectives it is a shorter tensor, whose shards are the ranks' pieces. One piece is the tensor itself.

What does not see each other is cut into *groups* instead, along the dim that counts it: a group goes all its way by itself.
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
    """Pieces of a rank's shard, no copies: [.., n/size, ..] -> [.., n_p/size, ..] each."""
    return (x,) if axis.size == 1 or axis.num_chunks == 1 else x.chunk(axis.num_chunks, dim)


def chunk_replicated(x: Tensor, axis: AxisGroup, *, dim: int) -> tuple[Tensor, ...]:
    """Pieces of a dim that every rank holds whole: [.., n, ..] -> [.., n_p, ..] each."""
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
    """Groups of what does not see each other, no copies: [batch, ..] -> [batch_g, ..] each; never more than batch."""
    return chunk_sharded(x, axis, dim=0)


def join_sharded(chunks: Iterable[Tensor], *, dim: int) -> Tensor:
    """The opposite of chunk_sharded, and along dim 0 of chunk_batch."""
    chunks = list(chunks)
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim)


def join_replicated(chunks: Iterable[Tensor], axis: AxisGroup, *, dim: int) -> Tensor:
    """The opposite of chunk_replicated."""
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
    """Lengths n_p of the pieces of a whole dim; a shard of one element is one piece."""
    if axis.size == 1:
        return [length]
    shard = axis.shard_length(length)
    filled = [min(max(length - rank * shard, 0), shard) for rank in range(axis.size)]
    step = -(-shard // axis.num_chunks)
    return [sum(min(max(n - start, 0), step) for n in filled) for start in range(0, shard, step)]


class PendingChunks:
    """Pieces on their way. To iterate is to let one after the other arrive."""

    def __init__(self, collectives: Sequence[AsyncCollective]) -> None:
        self._collectives = collectives

    def __iter__(self) -> Iterator[Tensor]:
        return (collective.wait() for collective in self._collectives)


def chunks_to_col(
    chunks: Iterable[Tensor], axis: AxisGroup, *, num_rows: Iterable[int], what: str
) -> PendingChunks:
    """row_to_col of each piece [batch, R_p/size, C_p, ..], started as soon as the piece is computed, before the next one is.

    num_rows: R_p of each.
    """
    start = partial(start_row_to_col, axis=axis, row_dim=1, col_dim=2, what=what)
    return PendingChunks([start(chunk, num_rows=length) for chunk, length in zip(chunks, num_rows)])


def chunks_to_row(
    chunks: Iterable[Tensor], axis: AxisGroup, *, num_cols: Iterable[int], what: str
) -> PendingChunks:
    """col_to_row of each piece [batch, R_p, C_p/size, ..], as chunks_to_col does it. num_cols: C_p of each."""
    start = partial(start_col_to_row, axis=axis, row_dim=1, col_dim=2, what=what)
    return PendingChunks([start(chunk, num_cols=length) for chunk, length in zip(chunks, num_cols)])


def relayout_with_work(
    chunks: Iterable[Tensor],
    work: Callable[[Tensor], Tensor],
    start: Callable[[Tensor], AsyncCollective],
) -> list[Tensor]:
    """A change of layout, and work that looks at each element alone, so that it may be done before or after.

    The last piece travels first and is worked on where it arrives, the others before they leave: each is under way while another is worked
    on. start: begins the journey of a piece.
    """
    *others, last = chunks
    early = start(last)
    collectives = [start(work(chunk)) for chunk in others]
    last = work(early.wait())
    return [*(collective.wait() for collective in collectives), last]
