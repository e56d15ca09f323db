"""Input embeddings: the initial MSA and pair representations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import scatter

TARGET_FEAT_CHANNELS = 22
MSA_FEAT_CHANNELS = 49


@dataclass(frozen=True, kw_only=True)
class InputEmbedderConfig:
    """Configuration of InputEmbedder."""

    category: ClassVar[str] = "mathematical"

    max_relative_position: int = 32
    """Offsets in the sequence are clipped to this number of residues."""


class InputEmbedder(nn.Module):
    """Algorithms 3 (InputEmbedder), 4 (relpos) and 5 (one_hot)."""

    def __init__(self, config: InputEmbedderConfig, *, c_m: int, c_z: int) -> None:
        super().__init__()
        self.max_relative_position = config.max_relative_position
        self.linear_tf_z_i = Linear(TARGET_FEAT_CHANNELS, c_z)
        self.linear_tf_z_j = Linear(TARGET_FEAT_CHANNELS, c_z)
        self.linear_tf_m = Linear(TARGET_FEAT_CHANNELS, c_m)
        self.linear_msa_m = Linear(MSA_FEAT_CHANNELS, c_m)
        self.linear_relpos = Linear(2 * config.max_relative_position + 1, c_z)

    def forward(
        self, target_feat: Tensor, residue_index: Tensor, msa_feat: Tensor, plan: ExecutionPlan
    ) -> tuple[Tensor, Tensor]:
        """Embed the features of one pass.

        Args:
            target_feat: [batch, N_res, 22]
            residue_index: [batch, N_res] int64
            msa_feat: [batch, N_clust, N_res, 49]
            plan: DAP axis.

        Returns:
            m: [batch, N_clust, N_res, c_m], z: [batch, N_res, N_res/dap, c_z]
        """
        rows = (target_feat, residue_index)
        cols = tuple(scatter(x, plan.dap, dim=1) for x in rows)
        return plan.compiled("embedders", self._embed)(rows, cols, msa_feat)

    def _embed(
        self, rows: tuple[Tensor, Tensor], cols: tuple[Tensor, Tensor], msa_feat: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute m and z; rows and cols as in `pairs`."""
        z = self.pairs(rows, cols)
        return self.msa(rows[0], msa_feat), z

    def msa(self, target_feat: Tensor, msa_feat: Tensor) -> Tensor:
        """Embed rows of the MSA (Algorithm 3, line 4): [batch, N_clust, N_res, c_m]."""
        return self.linear_msa_m(msa_feat) + self.linear_tf_m(target_feat)[:, None]

    def pairs(self, rows: tuple[Tensor, Tensor], cols: tuple[Tensor, Tensor]) -> Tensor:
        """Embed a block of the pairs (Algorithm 3, lines 1-3): [batch, N_row, N_col, c_z].

        rows, cols: target_feat [batch, n, 22] and residue_index [batch, n] of the residues.
        """
        z = self._relative_positions(rows[1], cols[1])
        return z + self.linear_tf_z_i(rows[0])[:, :, None] + self.linear_tf_z_j(cols[0])[:, None]

    def _relative_positions(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Embed relative positions (Algorithm 4): [batch, N_row, N_col, c_z].

        A linear layer applied to a one-hot vector selects a row of its weight, so this is a lookup.

        Args:
            rows, cols: residue indices [batch, N_row] and [batch, N_col].
        """
        limit = self.max_relative_position
        offset = rows[:, :, None] - cols[:, None, :]
        bins = offset.clamp(-limit, limit) + limit
        return F.embedding(bins, self.linear_relpos.weight.t()) + self.linear_relpos.bias
