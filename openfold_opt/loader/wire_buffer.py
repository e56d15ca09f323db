"""A batch of wire features as one buffer, so that it travels to a device in one copy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ALIGNMENT_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an array lies in the buffer."""

    offset: int
    size_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def pack_wire(
    arrays: Mapping[str, np.ndarray], *, pin_memory: bool = False
) -> tuple[Tensor, dict[str, Place]]:
    """Copies the arrays end to end into uint8 [size], each at a multiple of 64 bytes; returns where they are, too."""
    layout, size = {}, 0
    for name, array in arrays.items():
        layout[name] = Place(
            offset=size,
            size_bytes=array.nbytes,
            dtype=getattr(torch, array.dtype.name),
            shape=array.shape,
        )
        size += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
    for name, view in unpack_wire(buffer, layout).items():
        view.copy_(torch.from_numpy(np.require(arrays[name], requirements="W")))
    return buffer, layout


def unpack_wire(buffer: Tensor, layout: Mapping[str, Place]) -> dict[str, Tensor]:
    """The arrays as views into a buffer, on whatever device it is."""
    return {
        name: buffer[place.offset : place.offset + place.size_bytes]
        .view(place.dtype)
        .view(place.shape)
        for name, place in layout.items()
    }
