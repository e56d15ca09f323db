"""Chains of golden/data*/transforms.npz for the tests of geometry."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def golden_chains(shared: Path) -> dict[str, dict[str, Tensor]]:
    """Return chain id -> features by name for both golden data sets."""
    chains: dict[str, dict[str, Tensor]] = {}
    for folder in ("data", "data_quirks"):
        stored = np.load(shared / "golden" / folder / "transforms.npz")
        for key in stored.files:
            chain, _, name = key.partition("/")
            if "/" not in name:
                chains.setdefault(chain, {})[name] = torch.from_numpy(stored[key])
    return chains


def max_error(got: Tensor, expected: Tensor, mask: Tensor | None = None) -> float:
    """Return the largest absolute difference where mask, which has fewer trailing dims, is 1."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    difference = (got.double() - expected.double()).abs()
    if mask is not None:
        difference = difference * mask.reshape(*mask.shape, *(1,) * (difference.dim() - mask.dim()))
    return float(difference.max())
