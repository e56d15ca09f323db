"""How much of a tensor an operation works on at a time, and how the pieces' shares of a gradient add up."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE_BYTES = 2**20
"""Size of the largest intermediate result of a piece: several of them share a second-level cache of 1 to 2 MiB."""


def pieces(count: int, bytes_each: int) -> Iterator[slice]:
    """Cuts range(count) into slices whose intermediate results of `bytes_each` stay within PIECE_BYTES, at least one at a time."""
    length = max(1, PIECE_BYTES // max(1, bytes_each))
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def sums_like(*tensors: Tensor) -> list[Tensor]:
    """Zeros in float32, whatever the dtype of the tensors: many pieces add to them."""
    return [torch.zeros_like(x, dtype=torch.float32, memory_format=torch.contiguous_format) for x in tensors]


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b; total [n, m] float32, a [n, k] and b [k, m] of one dtype."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(torch.mm(a, b))
