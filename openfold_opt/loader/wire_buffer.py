"""Packing of a batch of wire features into one buffer, so that one copy moves it to a device."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ALIGNMENT_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class BufferEntry:
    """Offset, size, dtype and shape of an array in the buffer."""

    offset: int
    """In bytes."""
    size_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def pack_wire(
    arrays: Mapping[str, np.ndarray], *, pin_memory: bool = False
) -> tuple[Tensor, dict[str, BufferEntry]]:
    """Copy the arrays into one buffer, uint8 [size], each at a multiple of 64 bytes.

    Returns:
        the buffer, and its layout: name -> entry.
    """
    layout, size = {}, 0
    for name, array in arrays.items():
        layout[name] = BufferEntry(
            offset=size,
            size_bytes=array.nbytes,
            dtype=getattr(torch, array.dtype.name),
            shape=array.shape,
        )
        # Round up to the alignment.
        size += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
    for name, view in unpack_wire(buffer, layout).items():
        view.copy_(torch.from_numpy(np.require(arrays[name], requirements="W")))
    return buffer, layout


def unpack_wire(buffer: Tensor, layout: Mapping[str, BufferEntry]) -> dict[str, Tensor]:
    """Return the arrays as views into a buffer on any device."""
    return {
        name: buffer[entry.offset : entry.offset + entry.size_bytes]
        .view(entry.dtype)
        .view(entry.shape)
        for name, entry in layout.items()
    }
