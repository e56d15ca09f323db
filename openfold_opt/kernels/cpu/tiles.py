"""How much of a tensor an operation works on at a time, and how the pieces' shares of a gradient add up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

TILE_BYTES = 2**21
"""Size of the largest intermediate result of a piece. Matrix products like long pieces, loops like those that stay in the second-level cache."""


def tile_length(bytes_each: int) -> int:
    """How many elements, of whose intermediate results the largest has `bytes_each`, make a piece: at least one."""
    return max(1, TILE_BYTES // max(1, bytes_each))


def tiles(count: int, bytes_each: int) -> Iterator[slice]:
    """Cuts range(count) into slices of tile_length."""
    length = tile_length(bytes_each)
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


class Scratch:
    """Memory that the pieces of one call use in turn: what one wrote is still in the cache when the next writes over it."""

    def __init__(self, like: Tensor) -> None:
        """like: gives device and, where none is named, dtype."""
        self._like = like
        self._memory: dict[str, Tensor] = {}
        self._views: dict[str, dict[tuple[int, ...], Tensor]] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Of the shape, with anything in it; the same memory for the same name, so only the newest one holds what was written."""
        views = self._views.setdefault(name, {})
        if shape not in views:
            size = math.prod(shape)
            if name not in self._memory or self._memory[name].numel() < size:
                self._memory[name] = self._like.new_empty(size, dtype=dtype)
                views.clear()
            views[shape] = self._memory[name][:size].view(shape)
        return views[shape]


def sums_like(*tensors: Tensor) -> list[Tensor]:
    """Zeros in float32, whatever the dtype of the tensors: many pieces add to them."""
    return [
        torch.zeros_like(x, dtype=torch.float32, memory_format=torch.contiguous_format)
        for x in tensors
    ]


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b; total [n, m] float32, a [n, k] and b [k, m] of one dtype."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(torch.mm(a, b))


def product_into(result: Tensor, a: Tensor, b: Tensor) -> None:
    """result = a b; result [n, m] of any dtype, a [n, k] and b [k, m] of one dtype."""
    if a.dtype == result.dtype:
        torch.mm(a, b, out=result)
    else:
        result.copy_(torch.mm(a, b))
