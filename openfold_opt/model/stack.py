"""Common parts of the three stacks of blocks: masks, dropout and recomputation.

Dynamic axial parallelism (FastFold): a tensor is sharded over its *rows* (the first of the two
dims, suffix _row) or over its *columns* (suffix _col). The layout changes before an operation that
runs along the sharded dim. Between blocks, the MSA is sharded over rows and the pair representation
over columns: its change to rows overlaps with the work on the MSA, and the change of the MSA back
to rows overlaps with the work on the pairs. Template pairs are sharded over rows between blocks.
Within a block, operations exchange chunks (parallel/chunks.py). Sharded dims are written N_res/dap.
They are padded if the length is not divisible; values in the padding are finite and never used. On
one device every change of layout is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from openfold_opt.model import dropout as sites
from openfold_opt.model.dropout import PassDropout
from openfold_opt.model.outer_product_mean import outer_product_norm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import scatter


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMasks:
    """The pair mask in both layouts."""

    row: Tensor
    """[batch, N_res/dap, N_res]"""
    col: Tensor
    """[batch, N_res, N_res/dap]"""

    @classmethod
    def build(cls, pair_mask: Tensor, plan: ExecutionPlan) -> PairMasks:
        """Build both layouts from pair_mask [batch, N_res, N_res]."""
        return cls(row=scatter(pair_mask, plan.dap, dim=1), col=scatter(pair_mask, plan.dap, dim=2))


@dataclass(frozen=True, kw_only=True, eq=False)
class MSAMasks:
    """The MSA mask in both layouts."""

    row: Tensor
    """[batch, N_seq/dap, N_res]"""
    col: Tensor
    """[batch, N_seq, N_res/dap]"""
    num_seq: int
    norm: Tensor
    """[batch, N_res/dap, N_res, 1]: divisor of the outer product mean."""

    @classmethod
    def build(cls, msa_mask: Tensor, plan: ExecutionPlan, *, eps: float) -> MSAMasks:
        """Build both layouts and the divisor from msa_mask [batch, N_seq, N_res]."""
        col = scatter(msa_mask, plan.dap, dim=2)
        return cls(
            row=scatter(msa_mask, plan.dap, dim=1),
            col=col,
            num_seq=msa_mask.shape[1],
            norm=outer_product_norm(col, msa_mask, eps=eps),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockDropout:
    """Dropout masks of one block; None means no dropout.

    Dims of size 1 are those along which rows or columns share a mask.
    """

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
    """Sizes and rates that determine the dropout masks of a stack."""

    part: int
    """TEMPLATE_PAIR_STACK, EXTRA_MSA_STACK or EVOFORMER_STACK."""
    num_blocks: int
    num_res: int
    c_pair: int
    pair_rate: float
    leading: tuple[int, ...] = ()
    """Dims of a sample before those of the pair representation: (N_templ,) for templates."""
    c_msa: int = 0
    msa_rate: float = 0.0


def draw_dropout(
    shape: StackShape, dropout: PassDropout | None, plan: ExecutionPlan
) -> list[BlockDropout]:
    """Draw the dropout masks of all blocks of a stack at once."""
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
        # Merge the templates into the batch dim, as the stack does.
        return list(masks.flatten(1, 1 + len(shape.leading)).unbind(0))

    across_rows = (1, shape.num_res, shape.c_pair)
    across_columns = (shape.num_res, 1, shape.c_pair)
    drawn = zip(
        draw(sites.MSA_ROW_ATTENTION, (1, shape.num_res, shape.c_msa), shape.msa_rate),
        draw(sites.TRIANGLE_OUTGOING, across_rows, shape.pair_rate),
        draw(sites.TRIANGLE_INCOMING, across_rows, shape.pair_rate),
        draw(sites.TRIANGLE_STARTING, across_rows, shape.pair_rate),
        draw(sites.TRIANGLE_ENDING, across_columns, shape.pair_rate),
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
    """Call block(*args, plan), with recomputation in the backward pass if the plan requires it.

    Args:
        block: one block of a stack.
        index: index of the block in the stack.
        plan: execution options.
        args: further arguments of the block.
    """
    if index < plan.num_recomputed_blocks and torch.is_grad_enabled():
        # No random state has to be saved, because dropout masks are arguments. early_stop=False:
        # with an early stop, collectives that the block has started would not be waited for, and
        # the capture of a CUDA graph forbids that.
        return checkpoint(
            block, *args, plan, use_reentrant=False, preserve_rng_state=False, early_stop=False
        )
    return block(*args, plan)
