"""Common parts of the three stacks of blocks: masks, dropout and recomputation.

Suffix _row: sharded over rows; suffix _col: sharded over columns (model/axial_schedule.py). Sharded
dims are written N_res/dap. They are padded if the length is not divisible; values in the padding
are finite and never used. On one device nothing is sharded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from openfold_opt.model import dropout as sites
from openfold_opt.model.dropout import PassDropout
from openfold_opt.model.outer_product_mean import outer_product_norm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import scatter

P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMasks:
    """The pair mask in the layouts that the modules of a stack read, made once per stack."""

    row: Tensor
    """[batch, N_res/dap, N_res]"""
    col: Tensor
    """[batch, N_res, N_res/dap]"""
    col_transposed: Tensor
    """[batch, N_res/dap, N_res], contiguous."""

    @classmethod
    def build(cls, pair_mask: Tensor, plan: ExecutionPlan) -> PairMasks:
        """Build all layouts from pair_mask [batch, N_res, N_res]."""
        col = scatter(pair_mask, plan.dap, dim=2)
        return cls(
            row=scatter(pair_mask, plan.dap, dim=1),
            col=col,
            col_transposed=col.transpose(1, 2).contiguous(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MSAMasks:
    """The MSA mask in the layouts that the modules of a stack read, made once per stack."""

    row: Tensor
    """[batch, N_seq/dap, N_res]"""
    col: Tensor
    """[batch, N_seq, N_res/dap] in the dtype of the MSA representation."""
    col_transposed: Tensor
    """[batch, N_res/dap, N_seq], contiguous."""
    num_seq: int
    norm: Tensor
    """[batch, N_res/dap, N_res, 1]: divisor of the outer product mean."""

    @classmethod
    def build(
        cls, msa_mask: Tensor, plan: ExecutionPlan, *, eps: float, dtype: torch.dtype
    ) -> MSAMasks:
        """Build all layouts and the divisor from msa_mask [batch, N_seq, N_res].

        eps: added to the divisor; dtype: of the MSA representation.
        """
        col = scatter(msa_mask, plan.dap, dim=2)
        return cls(
            row=scatter(msa_mask, plan.dap, dim=1),
            col=col.to(dtype),
            col_transposed=col.transpose(1, 2).contiguous(),
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


def run_block(
    is_recomputed: bool, block: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
) -> Result:
    """Call block(*args, **kwargs), with recomputation in the backward pass if is_recomputed."""
    if is_recomputed and torch.is_grad_enabled():
        # No random state has to be saved, because dropout masks are arguments. early_stop=False:
        # with an early stop, collectives that the block has started would not be waited for, and
        # the capture of a CUDA graph forbids that.
        return checkpoint(
            block,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            early_stop=False,
            **kwargs,
        )
    return block(*args, **kwargs)
