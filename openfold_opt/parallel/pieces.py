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

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import start_col_to_row, start_row_to_col
from openfold_opt.parallel.flight import Flight
from openfold_opt.parallel.transfers import pad_to_shards


def cut_spread(x: Tensor, axis: AxisGroup, *, dim: int) -> tuple[Tensor, ...]:
    """Pieces of a rank's shard, no copies: [.., n/size, ..] -> [.., n_p/size, ..] each."""
    return (x,) if axis.size == 1 or axis.num_pieces == 1 else x.chunk(axis.num_pieces, dim)


def cut_whole(x: Tensor, axis: AxisGroup, *, dim: int) -> tuple[Tensor, ...]:
    """Pieces of a dim that every rank holds whole: [.., n, ..] -> [.., n_p, ..] each."""
    lengths = piece_lengths(x.shape[dim], axis)
    if len(lengths) == 1:
        return (x,)
    by_rank = pad_to_shards(x, axis, dim).unflatten(dim, (axis.size, -1)).chunk(axis.num_pieces, dim + 1)
    return tuple(piece.flatten(dim, dim + 1).narrow(dim, 0, length) for piece, length in zip(by_rank, lengths))


def cut_batch(x: Tensor, axis: AxisGroup) -> tuple[Tensor, ...]:
    """Groups of what does not see each other, no copies: [batch, ..] -> [batch_g, ..] each; never more than batch."""
    return cut_spread(x, axis, dim=0)


def join_spread(pieces: Iterable[Tensor], *, dim: int) -> Tensor:
    """The opposite of cut_spread, and along dim 0 of cut_batch."""
    pieces = list(pieces)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def join_whole(pieces: Iterable[Tensor], axis: AxisGroup, *, dim: int) -> Tensor:
    """The opposite of cut_whole."""
    pieces = list(pieces)
    if len(pieces) == 1:
        return pieces[0]
    by_rank = [pad_to_shards(piece, axis, dim).unflatten(dim, (axis.size, -1)) for piece in pieces]
    return torch.cat(by_rank, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, sum(piece.shape[dim] for piece in pieces))


def piece_lengths(length: int, axis: AxisGroup) -> list[int]:
    """Lengths n_p of the pieces of a whole dim; a shard of one element is one piece."""
    if axis.size == 1:
        return [length]
    shard = axis.shard_length(length)
    filled = [min(max(length - rank * shard, 0), shard) for rank in range(axis.size)]
    step = -(-shard // axis.num_pieces)
    return [sum(min(max(n - start, 0), step) for n in filled) for start in range(0, shard, step)]


class Arriving:
    """Pieces on their way. To iterate is to let one after the other arrive."""

    def __init__(self, flights: Sequence[Flight]) -> None:
        self._flights = flights

    def __iter__(self) -> Iterator[Tensor]:
        return (flight.arrive() for flight in self._flights)


def pieces_to_col(pieces: Iterable[Tensor], axis: AxisGroup, *, num_rows: Iterable[int], what: str) -> Arriving:
    """row_to_col of each piece [batch, R_p/size, C_p, ..], started as soon as the piece is computed, before the next one is.

    num_rows: R_p of each.
    """
    start = partial(start_row_to_col, axis=axis, row_dim=1, col_dim=2, what=what)
    return Arriving([start(piece, num_rows=length) for piece, length in zip(pieces, num_rows)])


def pieces_to_row(pieces: Iterable[Tensor], axis: AxisGroup, *, num_cols: Iterable[int], what: str) -> Arriving:
    """col_to_row of each piece [batch, R_p, C_p/size, ..], as pieces_to_col does it. num_cols: C_p of each."""
    start = partial(start_col_to_row, axis=axis, row_dim=1, col_dim=2, what=what)
    return Arriving([start(piece, num_cols=length) for piece, length in zip(pieces, num_cols)])


def travel_around(pieces: Iterable[Tensor], work: Callable[[Tensor], Tensor], start: Callable[[Tensor], Flight]) -> list[Tensor]:
    """A change of layout, and work that looks at each element alone, so that it may be done before or after.

    The last piece travels first and is worked on where it arrives, the others before they leave: each is under way while another is worked
    on. start: begins the journey of a piece.
    """
    *others, last = pieces
    early = start(last)
    flights = [start(work(piece)) for piece in others]
    last = work(early.arrive())
    return [*(flight.arrive() for flight in flights), last]
