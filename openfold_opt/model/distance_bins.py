"""One-hot distances between residues, for the recycling and template embeddings."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot_distances(
    rows: Tensor, cols: Tensor, *, min_bin: float, max_bin: float, num_bins: int, inf: float
) -> Tensor:
    """Return one-hot bins of the pairwise distances.

    The last bin is open. A distance below the first edge or exactly on an edge is in no bin.

    Args:
        rows, cols: positions [..., N_row, 3] and [..., N_col, 3], angstrom.
        min_bin, max_bin: lower edges of the first and the last bin, angstrom.
        num_bins: number of bins.
        inf: upper edge of the last bin, squared angstrom.

    Returns:
        [..., N_row, N_col, num_bins] in the dtype of the positions.
    """
    lower = torch.linspace(
        min_bin, max_bin, num_bins, dtype=rows.dtype, device=rows.device
    ).square()
    upper = torch.cat([lower[1:], torch.full_like(lower[:1], inf)])
    squared = (rows[..., :, None, :] - cols[..., None, :, :]).square().sum(-1, keepdim=True)
    return ((squared > lower) & (squared < upper)).to(rows.dtype)
