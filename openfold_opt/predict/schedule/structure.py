"""Structure module and heads without gradient: in blocks, from pairs that are sharded over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.geometry.rigid import Rigid
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.auxiliary_heads import (
    aligned_error_centers,
    aligned_tm_scores,
    largest_tm_score,
)
from openfold_opt.model.structure_module import Structure, StructureModule
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import gather
from openfold_opt.predict.schedule.blocks import whole_columns
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.schedule.trunk import TrunkState

PairRowSink = Callable[[int, Tensor], None]
"""Receives the number of the first row, and rows [n, N_res, ..] of the first sample."""


@torch.no_grad()
def predict_structure(
    model: AlphaFold,
    trunk: TrunkState,
    residues: tuple[Tensor, Tensor],
    plan: PredictionPlan,
) -> Structure:
    """Run Algorithm 20 and return the structure of the last block.

    residues: aatype [batch, N_res] int64 and seq_mask [batch, N_res].
    """
    module, (aatype, mask) = model.structure_module, residues

    def attend(s: Tensor, frames: Rigid) -> Tensor:
        return _point_attention(module, s, frames, (trunk.z, mask), plan)

    return module.predict(trunk.s, attend, aatype, plan)


def _point_attention(
    module: StructureModule,
    s: Tensor,
    frames: Rigid,
    pairs_and_mask: tuple[Tensor, Tensor],
    plan: PredictionPlan,
) -> Tensor:
    """Run Algorithm 22 for this rank's residues in blocks, and gather the result.

    The pairs are normalized again for every block of the structure module, which takes less memory
    than their normalized copy.
    """
    z, mask = pairs_and_mask
    projected, axis = module.ipa.project(s, frames), plan.dap
    own = slice(axis.rank * z.shape[1], (axis.rank + 1) * z.shape[1])
    result = s.new_empty(len(s), z.shape[1], s.shape[2])
    for rows in plan.blocks("point_attention", z.shape[1]):
        queries = slice(own.start + rows.start, own.start + rows.stop)
        result[:, rows] = module.ipa.attend(
            projected.with_queries(queries),
            module.layer_norm_z(z[:, rows].float(), plan),
            Rigid(frames.rotation[:, queries], frames.translation[:, queries]),
            (mask[:, queries], mask),
            plan,
        )
    return gather(result, axis, dim=1, length=s.shape[1], what="point attention")


@dataclass(frozen=True, kw_only=True)
class AlignedErrors:
    """Confidence from the aligned errors (supplement 1.9.7)."""

    ptm: Tensor
    """[batch]: predicted TM score over the residues that exist"""
    largest: float
    """Center of the last bin, angstrom."""


@torch.no_grad()
def predict_aligned_errors(
    model: AlphaFold, z: Tensor, mask: Tensor, plan: PredictionPlan, sink: PairRowSink | None
) -> AlignedErrors:
    """Compute the predicted TM score, and send the aligned errors [n, N_res] to a sink.

    Args:
        model: with a TM-score head.
        z: [batch, N_row, N_res, c_z]
        mask: [batch, N_res]
        plan: kernels, blocks and DAP axis.
        sink: called on the first rank with rows of the expected errors, angstrom.
    """
    heads, axis = model.auxiliary_heads, plan.dap
    max_bin, row_scores = heads.config.max_bin_aligned_error_angstrom, mask.new_empty(z.shape[:2])
    for rows in plan.blocks("pair_heads", z.shape[1]):
        probabilities = torch.softmax(heads.tm(z[:, rows].float()), dim=-1)
        centers = aligned_error_centers(probabilities, max_bin)
        row_scores[:, rows] = aligned_tm_scores(probabilities, mask, max_bin)
        if sink is not None:
            _send_rows((probabilities * centers).sum(-1), rows, z.shape[1], axis, sink)
    scores = gather(row_scores, axis, dim=1, length=mask.shape[1], what="row scores")
    return AlignedErrors(ptm=largest_tm_score(scores, mask), largest=float(centers[-1]))


@torch.no_grad()
def send_distogram(model: AlphaFold, z: Tensor, plan: PredictionPlan, sink: PairRowSink) -> None:
    """Send the logits of the distogram [n, N_res, num_bins] to a sink on the first rank."""
    head, axis = model.auxiliary_heads.distogram, plan.dap

    def half_logits(x: Tensor) -> Tensor:
        return head.linear(x.float())

    for rows, columns in whole_columns(z, plan, "pair_heads", half_logits):
        # Logits are symmetric: those of a pair and of its transpose are added.
        logits = half_logits(z[:, rows]) + columns.transpose(1, 2)
        _send_rows(logits, rows, z.shape[1], axis, sink)


@torch.no_grad()
def send_pairs(z: Tensor, plan: PredictionPlan, sink: PairRowSink) -> None:
    """Send the pair representation [n, N_res, c_z] to a sink on the first rank.

    z: [batch, N_row, N_res, c_z]
    """
    for rows in plan.blocks("pair_heads", z.shape[1]):
        _send_rows(z[:, rows], rows, z.shape[1], plan.dap, sink)


def _send_rows(
    values: Tensor, rows: slice, rows_per_rank: int, axis: AxisGroup, sink: PairRowSink
) -> None:
    """Gather a block of rows [batch, n, ..] of every rank and pass them to the sink of rank 0."""
    num_rows = rows.stop - rows.start
    gathered = gather(values, axis, dim=1, length=num_rows * axis.size, what="rows")
    if axis.rank == 0:
        for rank, block in enumerate(gathered[0].split(num_rows)):
            sink(rank * rows_per_rank + rows.start, block)
