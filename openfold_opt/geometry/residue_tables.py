"""Lookup of the tables of openfold_opt.protein by residue type on the device."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

_MAX_CACHED_TABLES = 256


def lookup(table: np.ndarray, aatype: Tensor) -> Tensor:
    """Return the rows of a table [21, ...] for aatype [...], classes 0..20.

    Class 21, a gap, has the row of class 20. Each table is copied to each device once and cached,
    so that a training step copies nothing from the host.

    Returns:
        [..., *table.shape[1:]] with the dtype of the table, on the device of aatype.

    Raises:
        ValueError: The table is writeable. The cached copy would not follow its changes.
    """
    if table.flags.writeable:
        raise ValueError(
            f"found a writeable table of shape {table.shape}, expected a read-only one; "
            "call setflags(write=False) where the table is created"
        )
    rows = _on_device(_SameArray(table), aatype.device)
    return rows[aatype.clamp(max=table.shape[0] - 1)]


class _SameArray:
    """A cache key that is equal only for the same array object.

    It holds the array, so that no other array can get the same id.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameArray) and self.array is other.array

    def __hash__(self) -> int:
        return id(self.array)


@functools.lru_cache(maxsize=_MAX_CACHED_TABLES)
def _on_device(key: _SameArray, device: torch.device) -> Tensor:
    return torch.tensor(key.array).to(device)
