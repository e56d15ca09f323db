"""Embedding of the template distances as a pair representation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.recycling_embedder import one_hot_distances
from openfold_opt.model.template_angle_embedder import NUM_TEMPLATE_CLASSES
from openfold_opt.parallel.collectives import scatter
from openfold_opt.protein.residue_constants import atom_order


@dataclass(frozen=True, kw_only=True)
class TemplatePairEmbedderConfig:
    """Configuration of TemplatePairEmbedder."""

    category: ClassVar[str] = "mathematical"

    min_bin_angstrom: float = 3.25
    max_bin_angstrom: float = 50.75
    num_bins: int = 39
    inf: float = 1e5
    """Upper edge of the last bin, squared angstrom."""


class TemplateResidues(NamedTuple):
    """Features of residues of templates."""

    aatype: Tensor
    """[batch, N_templ, n] int64"""
    pseudo_beta: Tensor
    """[batch, N_templ, n, 3] angstrom"""
    pseudo_beta_mask: Tensor
    """[batch, N_templ, n]"""
    all_atom_mask: Tensor
    """[batch, N_templ, n, 37]"""


class TemplatePairEmbedder(nn.Module):
    """Algorithm 2, line 9, with the features of supplement 1.2.9.

    The three channels of unit vectors between residues are zero, as in the models of the paper.
    Their weights are kept for compatibility with the published checkpoint.
    """

    def __init__(self, config: TemplatePairEmbedderConfig, *, c_t: int) -> None:
        super().__init__()
        self.config = config
        self.linear = Linear(
            config.num_bins + 1 + 2 * NUM_TEMPLATE_CLASSES + 3 + 1, c_t, init="relu"
        )

    def forward(
        self, aatype: Tensor, pseudo_beta: Tensor, masks: tuple[Tensor, Tensor], plan: ExecutionPlan
    ) -> Tensor:
        """Embed all templates.

        Args:
            aatype: [batch, N_templ, N_res] int64
            pseudo_beta: [batch, N_templ, N_res, 3] angstrom
            masks: masks of pseudo_beta [batch, N_templ, N_res] and of all atoms
                [batch, N_templ, N_res, 37].
            plan: DAP axis.

        Returns:
            [batch, N_templ, N_res/dap, N_res, c_t]
        """
        cols = TemplateResidues(aatype, pseudo_beta, *masks)
        rows = TemplateResidues(*(scatter(x, plan.dap, dim=2) for x in cols))
        return plan.compiled("embedders", self.pairs)(rows, cols)

    def pairs(self, rows: TemplateResidues, cols: TemplateResidues) -> Tensor:
        """Embed a block of the pairs: [batch, N_templ, N_row, N_col, c_t]."""
        config = self.config
        bins = one_hot_distances(
            rows.pseudo_beta,
            cols.pseudo_beta,
            min_bin=config.min_bin_angstrom,
            max_bin=config.max_bin_angstrom,
            num_bins=config.num_bins,
            inf=config.inf,
        )
        one_hot, backbone = _types_and_backbone(cols, bins.dtype)
        # On one device rows and columns are the same tensors.
        row_one_hot, row_backbone = (
            (one_hot, backbone)
            if rows.aatype is cols.aatype
            else _types_and_backbone(rows, bins.dtype)
        )
        shape = (*bins.shape[:-1], NUM_TEMPLATE_CLASSES)
        pseudo_beta_pairs = (
            rows.pseudo_beta_mask[..., :, None] * cols.pseudo_beta_mask[..., None, :]
        ).unsqueeze(-1)
        backbone_pairs = (row_backbone[..., :, None] * backbone[..., None, :]).unsqueeze(-1)
        features = torch.cat(
            [
                bins,
                pseudo_beta_pairs,
                one_hot[..., None, :, :].expand(shape),
                row_one_hot[..., :, None, :].expand(shape),
                bins.new_zeros((*bins.shape[:-1], 3)),
                backbone_pairs,
            ],
            dim=-1,
        )
        return self.linear(features * backbone_pairs)


def _types_and_backbone(residues: TemplateResidues, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return one-hot residue types [.., N_res, 22], and the mask of residues with N, CA and C."""
    # Index with integers: a list of integers would be copied from the host to the device.
    n, ca, c = (residues.all_atom_mask[..., atom_order[name]] for name in ("N", "CA", "C"))
    return F.one_hot(residues.aatype, NUM_TEMPLATE_CLASSES).to(dtype), n * ca * c
