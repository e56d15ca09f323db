"""Order of the work of a pass without gradient: in place, in blocks, and sharded.

The pair representation z and the MSA representation m are updated in place, block by block. So the
largest tensors are z itself and, in a triangle multiplication, the edges of one side. z is always
sharded over its rows, and m over its rows between the blocks of a stack. Steps along the columns of
z exchange one block of columns at a time:

    outgoing edges     b is gathered in blocks of rows; each one updates a block of columns of z
    incoming edges     each rank sums over its own k; blocks of rows are reduced and scattered
    starting node      local, after the bias has been gathered
    ending node        blocks of columns change to whole columns and back

The number of residues and of rows of m is a multiple of the number of ranks. The modules of the
model compute each block; this file only divides the work. N_row is N_res/dap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from openfold_opt.model.evoformer_block import MSABlock
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.outer_product_mean import OuterProductMean, outer_product_norm
from openfold_opt.model.transition import Transition
from openfold_opt.model.triangle_attention import TriangleAttentionStartingNode
from openfold_opt.parallel.collectives import col_to_row, gather, row_to_col
from openfold_opt.predict.schedule.plan import PredictionPlan, Step
from openfold_opt.predict.schedule.sharded_pairs import (
    add_columns,
    own_rows,
    pair_mask,
    take_columns,
)
from openfold_opt.predict.schedule.triangles import multiply


@dataclass(kw_only=True, eq=False)
class Representations:
    """The representations that the blocks of a stack update in place."""

    m: Tensor
    """[batch, N_seq/dap, N_res, c_m]"""
    z: Tensor
    """[batch, N_row, N_res, c_z]"""


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionMasks:
    """Masks of a chain; the masks of pairs are built block by block."""

    residues: Tensor
    """[batch, N_res]"""
    msa: Tensor
    """[batch, N_seq, N_res], all rows"""
    outer_product_eps: float
    """Added to the number of sequences that cover both residues of a pair."""


@dataclass(frozen=True, kw_only=True)
class MSASteps:
    """Names of the steps along the MSA, which differ between the two stacks."""

    row: Step
    column: Step
    transition: Step


MAIN_MSA = MSASteps(row="msa_row", column="msa_column", transition="msa_transition")
EXTRA_MSA = MSASteps(row="extra_row", column="extra_column", transition="extra_transition")


def update_block(
    block: MSABlock,
    state: Representations,
    masks: PredictionMasks,
    steps: MSASteps,
    plan: PredictionPlan,
) -> None:
    """Run one block of Algorithm 6 or 18 in place."""
    core = block.core
    attend_within_rows(block, state, masks, steps, plan)
    # Rebinding state.m frees the tensor that was sent.
    state.m = row_to_col(
        state.m, plan.dap, row_dim=1, col_dim=2, num_rows=masks.msa.shape[1], what="MSA to columns"
    )
    mask_col = own_rows(masks.msa, plan.dap, dim=2)
    _attend_within_columns(block, state.m, mask_col, steps, plan)
    apply_transition(core.msa_transition, state.m, steps.transition, plan)
    _add_outer_products(core.outer_product_mean, state, masks, plan)
    state.m = col_to_row(
        state.m,
        plan.dap,
        row_dim=1,
        col_dim=2,
        num_cols=masks.residues.shape[1],
        what="MSA to rows",
    )
    multiply(core.tri_mul_out, state.z, masks.residues, plan)
    multiply(core.tri_mul_in, state.z, masks.residues, plan)
    attend_starting(core.tri_att_start, state.z, masks.residues, plan)
    attend_ending(core.tri_att_end, state.z, masks.residues, plan)
    apply_transition(core.pair_transition, state.z, "pair_transition", plan)


def attend_within_rows(
    block: MSABlock,
    state: Representations,
    masks: PredictionMasks,
    steps: MSASteps,
    plan: PredictionPlan,
) -> None:
    """Run Algorithm 7 in place."""
    module = block.msa_att_row
    bias = gathered_bias(module.layer_norm_z, module.linear_z, state.z, plan)
    mask = own_rows(masks.msa, plan.dap, dim=1)
    projection = module.mha.projection()
    for rows in plan.blocks(steps.row, state.m.shape[1]):
        _, x = module.normalize(state.m[:, rows], plan)
        update = module.mha.attend(x, projection, mask[:, rows], lambda: bias, plan)
        state.m[:, rows].add_(update)


def _attend_within_columns(
    block: MSABlock, m_col: Tensor, mask_col: Tensor, steps: MSASteps, plan: PredictionPlan
) -> None:
    """Run Algorithm 8 or 19 in place; m_col: [batch, N_seq, N_res/dap, c_m]."""
    module = block.msa_att_col
    for cols in plan.blocks(steps.column, m_col.shape[2]):
        _, x = module.normalize(m_col[:, :, cols], plan)
        update = module.attention(x, mask_col[:, :, cols].transpose(1, 2), plan)
        m_col[:, :, cols].add_(update.transpose(1, 2))


def apply_transition(module: Transition, x: Tensor, step: Step, plan: PredictionPlan) -> None:
    """Run Algorithm 9 or 15 in place; x: [batch, n, .., c]."""
    for rows in plan.blocks(step, x.shape[1]):
        x[:, rows] = module(x[:, rows], plan)


def _add_outer_products(
    module: OuterProductMean,
    state: Representations,
    masks: PredictionMasks,
    plan: PredictionPlan,
) -> None:
    """Run Algorithm 10 in place on z; state.m is sharded over columns.

    Side b is computed for all residues, side a for one block of rows of z at a time.
    """
    m, mask, axis = state.m, masks.msa, plan.dap
    mask_col = own_rows(mask, axis, dim=2)
    weight = module.linear_2.weight
    b = weight.new_empty(*m.shape[:3], len(weight))
    for cols in plan.blocks("outer_side", m.shape[2]):
        b[:, :, cols] = module.project_side(m[:, :, cols], mask_col[:, :, cols], "b", plan)
    b = gather(b, axis, dim=2, length=mask.shape[2], what="outer product side")
    for rows in plan.blocks("outer_product", state.z.shape[1]):
        a = module.project_side(m[:, :, rows], mask_col[:, :, rows], "a", plan)
        norm = outer_product_norm(mask_col[:, :, rows], mask, eps=masks.outer_product_eps)
        state.z[:, rows] = module.update(state.z[:, rows], (a, b), norm, plan)


def gathered_bias(layer_norm: LayerNorm, linear: Linear, z: Tensor, plan: PredictionPlan) -> Tensor:
    """Project z [batch, N_row, N_res, c_z] to a bias on every rank.

    Returns:
        [batch, num_heads, N_res, N_res]
    """
    num_heads, num_res = len(linear.weight), z.shape[2]
    bias = z.new_empty((len(z), num_heads, *z.shape[1:3]), dtype=linear.weight.dtype)
    for rows in plan.blocks("pair_bias", z.shape[1]):
        _, projected = layer_norm.project_normalized(z[:, rows], linear.weights, plan)
        bias[:, :, rows] = projected.movedim(-1, 1)
    return gather(bias, plan.dap, dim=2, length=num_res, what="pair bias")


def attend_starting(
    module: TriangleAttentionStartingNode, z: Tensor, mask: Tensor, plan: PredictionPlan
) -> None:
    """Run Algorithm 13 in place.

    Args:
        module: the triangle attention.
        z: [batch, N_row, N_res, c_z]
        mask: [batch, N_res]
        plan: kernels, blocks and DAP axis.
    """
    bias = gathered_bias(module.layer_norm, module.linear, z, plan)
    projection, own_mask = module.mha.projection(), own_rows(mask, plan.dap, dim=1)
    for rows in plan.blocks("triangle_attention", z.shape[1]):
        x = module.layer_norm(z[:, rows], plan)
        update = module.mha.attend(
            x, projection, pair_mask(own_mask[:, rows], mask), lambda: bias, plan
        )
        z[:, rows].add_(update)


def attend_ending(
    module: TriangleAttentionStartingNode, z: Tensor, mask: Tensor, plan: PredictionPlan
) -> None:
    """Run Algorithm 14 in place; arguments as attend_starting."""
    # Logits of elements i and k of a column have the bias of the pair ki.
    bias = gathered_bias(module.layer_norm, module.linear, z, plan).mT.contiguous()
    projection, own_mask = module.mha.projection(), own_rows(mask, plan.dap, dim=1)
    for cols, column in whole_columns(z, plan, "triangle_attention"):
        x = module.layer_norm(column.transpose(1, 2), plan)
        update = module.mha.attend(
            x, projection, pair_mask(own_mask[:, cols], mask), lambda: bias, plan
        )
        update = col_to_row(
            update.transpose(1, 2),
            plan.dap,
            row_dim=1,
            col_dim=2,
            num_cols=update.shape[1] * plan.dap.size,
            what="columns to rows",
        )
        add_columns(z, cols, update, plan.dap)


def whole_columns(
    z: Tensor, plan: PredictionPlan, step: Step, project: Callable[[Tensor], Tensor] | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of columns with all of their rows.

    Every rank receives the same number of columns: those of its residues.

    Args:
        z: [batch, N_row, N_res, c_z]
        plan: blocks and DAP axis.
        step: the step whose blocks are used.
        project: applied to the columns before they are exchanged; None: nothing.

    Yields:
        The positions of the columns among the residues of a rank, and [batch, N_res, n, c].
    """
    for cols in plan.blocks(step, z.shape[1]):
        columns = take_columns(z, cols, plan.dap)
        yield (
            cols,
            row_to_col(
                columns if project is None else project(columns),
                plan.dap,
                row_dim=1,
                col_dim=2,
                num_rows=z.shape[2],
                what="rows to columns",
            ),
        )
