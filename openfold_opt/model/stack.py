"""What the three stacks of blocks share: masks and dropout in each layout, and recomputation.

Dynamic axial parallelizm (FastFold): a tensor is sharded over its *rows* (first of the two axes, name ends _row) or over its *columns*
(_col), and changes from one to the other where attention or product run along the axis that it is sharded over. Between blocks MSAs
are sharded over rows and pairs over columns: the pairs' change to rows then runs behind the block's work on the MSA, and the MSA's
change back to rows behind the work on the pairs. Pairs of templates are sharded over rows. Within a block steps hand on pieces
(parallel/chunks.py). Sharded dims are written N_res/dap and padded where they do not divide; what the padding holds is finite and
goes nowhere. On one device every change of layout is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from openfold_opt.model import dropout as places
from openfold_opt.model.dropout import PassDropout
from openfold_opt.model.outer_product_mean import outer_product_norm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import scatter


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMasks:
    """pair_mask in both layouts."""

    row: Tensor
    """[batch, N_res/dap, N_res]"""
    col: Tensor
    """[batch, N_res, N_res/dap]"""

    @classmethod
    def build(cls, pair_mask: Tensor, plan: ExecutionPlan) -> PairMasks:
        """pair_mask: [batch, N_res, N_res]"""
        return cls(row=scatter(pair_mask, plan.dap, dim=1), col=scatter(pair_mask, plan.dap, dim=2))


@dataclass(frozen=True, kw_only=True, eq=False)
class MSAMasks:
    """msa_mask in both layouts."""

    row: Tensor
    """[batch, N_seq/dap, N_res]"""
    col: Tensor
    """[batch, N_seq, N_res/dap]"""
    num_seq: int
    norm: Tensor
    """[batch, N_res/dap, N_res, 1]: divisor of the outer product mean"""

    @classmethod
    def build(cls, msa_mask: Tensor, plan: ExecutionPlan, *, eps: float) -> MSAMasks:
        """msa_mask: [batch, N_seq, N_res]"""
        col = scatter(msa_mask, plan.dap, dim=2)
        return cls(
            row=scatter(msa_mask, plan.dap, dim=1),
            col=col,
            num_seq=msa_mask.shape[1],
            norm=outer_product_norm(col, msa_mask, eps=eps),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockDropout:
    """Dropout masks of one block, None where nothing is dropped. Rows or columns share one mask, hence the dims of 1."""

    msa_row: Tensor | None = None
    """[batch, 1, N_res, c_m]"""
    outgoing: Tensor | None = None
    """[batch, 1, N_res, c_z]"""
    incoming: Tensor | None = None
    """[batch, 1, N_res/dap, c_z]"""
    starting: Tensor | None = None
    """[batch, 1, N_res, c_z]"""
    ending: Tensor | None = None
    """[batch, N_res, 1, c_z]"""


@dataclass(frozen=True, kw_only=True)
class StackShape:
    """What a stack must say of itself for its dropout masks to be drawn."""

    part: int
    """TEMPLATE_PAIR_STACK, EXTRA_MSA_STACK or EVOFORMER_STACK"""
    num_blocks: int
    num_res: int
    c_pair: int
    pair_rate: float
    leading: tuple[int, ...] = ()
    """Dims in front of the pair representation's that are part of one sample: (N_templ,) for templates."""
    c_msa: int = 0
    msa_rate: float = 0.0


def draw_dropout(
    shape: StackShape, dropout: PassDropout | None, plan: ExecutionPlan
) -> list[BlockDropout]:
    """Draws the masks of all blocks of a stack at once."""
    if dropout is None:
        return [BlockDropout()] * shape.num_blocks

    def draw(site: int, mask_shape: tuple[int, ...], rate: float) -> list[Tensor | None]:
        if rate == 0.0:
            return [None] * shape.num_blocks
        masks = dropout.masks(
            plan,
            part=shape.part,
            site=site,
            num_blocks=shape.num_blocks,
            shape=shape.leading + mask_shape,
            rate=rate,
        )
        # Templates become part of the batch dim, as they do in the stack.
        return list(masks.flatten(1, 1 + len(shape.leading)).unbind(0))

    across_rows = (1, shape.num_res, shape.c_pair)
    across_columns = (shape.num_res, 1, shape.c_pair)
    drawn = zip(
        draw(places.MSA_ROW_ATTENTION, (1, shape.num_res, shape.c_msa), shape.msa_rate),
        draw(places.TRIANGLE_OUTGOING, across_rows, shape.pair_rate),
        draw(places.TRIANGLE_INCOMING, across_rows, shape.pair_rate),
        draw(places.TRIANGLE_STARTING, across_rows, shape.pair_rate),
        draw(places.TRIANGLE_ENDING, across_columns, shape.pair_rate),
    )
    return [
        BlockDropout(
            msa_row=msa_row,
            outgoing=outgoing,
            incoming=None if incoming is None else scatter(incoming, plan.dap, dim=2),
            starting=starting,
            ending=ending,
        )
        for msa_row, outgoing, incoming, starting, ending in drawn
    ]


def run_block(block: Callable[..., Any], index: int, plan: ExecutionPlan, *args: Any) -> Any:
    """Calls block(*args, plan); if the plan says so, its activations are thrown away and computed again for the gradient.

    index: of the block in its stack.
    """
    if index < plan.num_recomputed_blocks and torch.is_grad_enabled():
        # No random state to keep: dropout masks are among the arguments. Recomputation runs to the
        # end of the block: PyTorch's early stop would leave collectives that the block has started
        # without their wait, which the capture of a CUDA graph forbids.
        return checkpoint(
            block, *args, plan, use_reentrant=False, preserve_rng_state=False, early_stop=False
        )
    return block(*args, plan)
