"""Embedding of the outputs of the previous recycling iteration, and bins of distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import scatter


@dataclass(frozen=True, kw_only=True)
class RecyclingEmbedderConfig:
    """Configuration of RecyclingEmbedder."""

    category: ClassVar[str] = "mathematical"

    min_bin_angstrom: float = 3.25
    max_bin_angstrom: float = 20.75
    num_bins: int = 15
    inf: float = 1e8
    """Upper edge of the last bin, squared angstrom."""


class RecyclingEmbedder(nn.Module):
    """Algorithm 32 (RecyclingEmbedder)."""

    def __init__(self, config: RecyclingEmbedderConfig, *, c_m: int, c_z: int) -> None:
        super().__init__()
        self.config = config
        self.linear = Linear(config.num_bins, c_z)
        self.layer_norm_m = LayerNorm(c_m)
        self.layer_norm_z = LayerNorm(c_z)

    def forward(
        self, first_row: Tensor, z: Tensor, pseudo_beta: Tensor, plan: ExecutionPlan
    ) -> tuple[Tensor, Tensor]:
        """Embed the outputs of the previous iteration; all three are zero in the first one.

        Args:
            first_row: [batch, N_res, c_m], first row of the previous MSA representation.
            z: [batch, N_res, N_res/dap, c_z], previous pair representation.
            pseudo_beta: [batch, N_res, 3] angstrom, previous prediction.
            plan: kernels and DAP axis.

        Returns:
            Updates of the first MSA row [batch, N_res, c_m] and of the pair representation
            [batch, N_res, N_res/dap, c_z].
        """
        positions = (pseudo_beta, scatter(pseudo_beta, plan.dap, dim=1))
        return plan.compiled("embedders", self._embed)(first_row, z, positions, plan)

    def _embed(
        self, first_row: Tensor, z: Tensor, positions: tuple[Tensor, Tensor], plan: ExecutionPlan
    ) -> tuple[Tensor, Tensor]:
        """Compute both updates. positions: of the rows and of the columns of z."""
        return self.layer_norm_m(first_row, plan), self.pairs(z, positions, plan)

    def pairs(self, z: Tensor, positions: tuple[Tensor, Tensor], plan: ExecutionPlan) -> Tensor:
        """Compute the update of a block of the pairs (lines 1-3).

        Args:
            z: [batch, N_row, N_col, c_z] of the previous iteration.
            positions: previous predictions [batch, N_row, 3] and [batch, N_col, 3], angstrom.
            plan: kernels.

        Returns:
            [batch, N_row, N_col, c_z]
        """
        config = self.config
        bins = one_hot_distances(
            *positions,
            min_bin=config.min_bin_angstrom,
            max_bin=config.max_bin_angstrom,
            num_bins=config.num_bins,
            inf=config.inf,
        )
        return self.linear(bins) + self.layer_norm_z(z, plan)


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
