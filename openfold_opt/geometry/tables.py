"""Tables of openfold_opt.protein as tensors, looked up by residue type on the residue type's own device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def lookup(table: np.ndarray, aatype: Tensor) -> Tensor:
    """Rows of a table [21, ...] for aatype [...] (classes 0..20; 21, a gap, counts as unknown): [..., *table.shape[1:]]."""
    rows = torch.tensor(table, device=aatype.device)
    return rows[aatype.clamp(max=table.shape[0] - 1)]
