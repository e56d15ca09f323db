"""Tables of openfold_opt.protein as tensors, looked up by residue type on the residue type's own device."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

_MAX_KEPT_TABLES = 256


def lookup(table: np.ndarray, aatype: Tensor) -> Tensor:
    """Rows of a table [21, ...] for aatype [...], classes 0..20; 21, a gap, counts as unknown.

    Each table goes to each device once and is kept there, so that a training step copies nothing from the host.

    Returns:
        [..., *table.shape[1:]], dtype as the table's.

    Raises:
        ValueError: the table is writeable: what is kept would not follow its changes.
    """
    if table.flags.writeable:
        raise ValueError(
            f"a table {table.shape} is writeable; call setflags(write=False) on it once, where it is made"
        )
    rows = _on_device(_SameArray(table), aatype.device)
    return rows[aatype.clamp(max=table.shape[0] - 1)]


class _SameArray:
    """An array as a key: equal only to itself. Holding the array keeps its id from being given to another one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameArray) and self.array is other.array

    def __hash__(self) -> int:
        return id(self.array)


@functools.lru_cache(maxsize=_MAX_KEPT_TABLES)
def _on_device(key: _SameArray, device: torch.device) -> Tensor:
    return torch.tensor(key.array).to(device)
