"""Tile sizes, scratch memory, and accumulation of gradients over tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

TILE_BYTES = 2**21
"""Size of the largest intermediate result of a tile.

Matrix products are faster for large tiles; the C++ kernels are faster for tiles that fit the
second-level cache."""


def tile_length(bytes_each: int) -> int:
    """Return the number of elements in a tile, at least one.

    bytes_each: size of the largest intermediate result of one element.
    """
    return max(1, TILE_BYTES // max(1, bytes_each))


def tiles(count: int, bytes_each: int) -> Iterator[slice]:
    """Split range(count) into slices of tile_length."""
    length = tile_length(bytes_each)
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


class Scratch:
    """Memory that all tiles of a call share, so that it stays in the cache."""

    def __init__(self, like: Tensor) -> None:
        """Create without memory; `like` gives the device and the default dtype."""
        self._like = like
        self._memory: dict[str, Tensor] = {}
        self._views: dict[str, dict[tuple[int, ...], Tensor]] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return an uninitialized tensor of a shape.

        Tensors of the same name share memory: writing to a new one overwrites the earlier ones.
        """
        views = self._views.setdefault(name, {})
        if shape not in views:
            size = math.prod(shape)
            if name not in self._memory or self._memory[name].numel() < size:
                self._memory[name] = self._like.new_empty(size, dtype=dtype)
                views.clear()
            views[shape] = self._memory[name][:size].view(shape)
        return views[shape]


def sums_like(*tensors: Tensor) -> list[Tensor]:
    """Return contiguous float32 zeros of the shapes of tensors, to accumulate over tiles."""
    return [
        torch.zeros_like(x, dtype=torch.float32, memory_format=torch.contiguous_format)
        for x in tensors
    ]


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Compute total += a b; total [n, m] float32, a [n, k] and b [k, m] of one dtype."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(torch.mm(a, b))


def product_into(result: Tensor, a: Tensor, b: Tensor) -> None:
    """Compute result = a b; result [n, m] of any dtype, a [n, k] and b [k, m] of one dtype."""
    if a.dtype == result.dtype:
        torch.mm(a, b, out=result)
    else:
        result.copy_(torch.mm(a, b))
