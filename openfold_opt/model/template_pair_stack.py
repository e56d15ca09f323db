"""The stack that refines the pair representation of each template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import ClassVar

from torch import Tensor, nn

from openfold_opt.model.dropout import TEMPLATE_PAIR_STACK, PassDropout
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, PairMasks, StackShape, draw_dropout, run_block
from openfold_opt.model.transition import PairTransition
from openfold_opt.model.triangle_attention import (
    TriangleAttentionEndingNode,
    TriangleAttentionStartingNode,
)
from openfold_opt.model.triangle_multiplication import (
    TriangleMultiplicationIncoming,
    TriangleMultiplicationOutgoing,
)
from openfold_opt.parallel.chunks import (
    chunk_batch,
    chunks_to_col,
    chunks_to_row,
    join_sharded,
    relayout_with_work,
)
from openfold_opt.parallel.collectives import start_col_to_row, start_row_to_col


@dataclass(frozen=True, kw_only=True)
class TemplatePairStackConfig:
    """Configuration of TemplatePairStack; hidden sizes of attention are per head."""

    category: ClassVar[str] = "mathematical"

    num_blocks: int = 2
    c_hidden_triangle_attention: int = 16
    num_heads_triangle: int = 4
    c_hidden_triangle_multiplication: int = 64
    transition_factor: int = 2
    dropout_rate: float = 0.25
    mask_inf: float = 1e9
    """Subtracted from the attention logits of masked elements."""


class TemplatePairBlock(nn.Module):
    """One block of Algorithm 16 (TemplatePairStack)."""

    def __init__(self, config: TemplatePairStackConfig, *, c_t: int) -> None:
        super().__init__()
        attention = {
            "c_hidden": config.c_hidden_triangle_attention,
            "num_heads": config.num_heads_triangle,
            "mask_inf": config.mask_inf,
        }
        c_hidden = config.c_hidden_triangle_multiplication
        self.tri_att_start = TriangleAttentionStartingNode(c_t, **attention)
        self.tri_att_end = TriangleAttentionEndingNode(c_t, **attention)
        self.tri_mul_out = TriangleMultiplicationOutgoing(c_t, c_hidden=c_hidden)
        self.tri_mul_in = TriangleMultiplicationIncoming(c_t, c_hidden=c_hidden)
        self.pair_transition = PairTransition(c_t, factor=config.transition_factor)

    def forward(
        self, t_row: Iterable[Tensor], masks: PairMasks, dropout: BlockDropout, plan: ExecutionPlan
    ) -> list[Tensor]:
        """Update groups of [batch * N_templ, N_res/dap, N_res, c_t].

        masks and dropout cover all groups.
        """
        num_res, axis = masks.row.shape[2], plan.dap
        to_col = partial(
            chunks_to_col, axis=axis, num_rows=repeat(num_res), what="templates to columns"
        )
        t = to_col(_apply_to_groups(self.tri_att_start, t_row, masks.row, dropout.starting, plan))
        t = _apply_to_groups(self.tri_att_end, t, masks.col, dropout.ending, plan)
        t = chunks_to_row(t, axis, num_cols=repeat(num_res), what="templates to rows")
        t = to_col(_apply_to_groups(self.tri_mul_out, t, masks.row, dropout.outgoing, plan))
        t = _apply_to_groups(self.tri_mul_in, t, masks.col, dropout.incoming, plan)
        to_row = partial(
            start_col_to_row,
            axis=axis,
            row_dim=1,
            col_dim=2,
            num_cols=num_res,
            what="templates to rows",
        )
        return relayout_with_work(t, partial(self.pair_transition, plan=plan), to_row)


def _apply_to_groups(
    module: Callable[..., Iterator[Tensor]],
    t: Iterable[Tensor],
    mask: Tensor,
    dropout: Tensor | None,
    plan: ExecutionPlan,
) -> Iterator[Tensor]:
    """Apply a module to each group of templates.

    The collectives of all groups are in flight before the first group is complete.

    Args:
        module: an operation on chunks.
        t: the groups.
        mask: the mask of all groups.
        dropout: the dropout mask of all groups, or None.
        plan: kernels and DAP axis.
    """
    dropouts = repeat(None) if dropout is None else chunk_batch(dropout, plan.dap)
    groups = zip(t, chunk_batch(mask, plan.dap), dropouts)
    started = [
        module((group,), group_mask, group_dropout, plan.without_chunks())
        for group, group_mask, group_dropout in groups
    ]
    return chain.from_iterable(started)


class TemplatePairStack(nn.Module):
    """Algorithm 16 (TemplatePairStack).

    Templates are independent and are part of the batch dim. On several ranks the transfers of one
    group of templates overlap with the work on the next group. Groups are not split into chunks.
    """

    def __init__(self, config: TemplatePairStackConfig, *, c_t: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            TemplatePairBlock(config, c_t=c_t) for _ in range(config.num_blocks)
        )
        self.layer_norm = LayerNorm(c_t)

    def forward(
        self, t: Tensor, pair_mask: Tensor, dropout: PassDropout | None, plan: ExecutionPlan
    ) -> Tensor:
        """Refine all templates.

        Args:
            t: [batch, N_templ, N_res/dap, N_res, c_t]
            pair_mask: [batch, N_res, N_res]
            dropout: None disables dropout.
            plan: kernels, DAP axis and recomputation.

        Returns:
            [batch, N_templ, N_res, N_res/dap, c_t], normalized.
        """
        batch, num_templates, _, num_res, c_t = t.shape
        shape = StackShape(
            part=TEMPLATE_PAIR_STACK,
            num_blocks=self.config.num_blocks,
            num_res=num_res,
            c_pair=c_t,
            pair_rate=self.config.dropout_rate,
            leading=(num_templates,),
        )
        masks = PairMasks.build(pair_mask.repeat_interleave(num_templates, dim=0), plan)
        t_row = chunk_batch(t.flatten(0, 1), plan.dap)
        for index, (block, block_dropout) in enumerate(
            zip(self.blocks, draw_dropout(shape, dropout, plan))
        ):
            t_row = run_block(block, index, plan, t_row, masks, block_dropout)
        to_col = partial(
            start_row_to_col,
            axis=plan.dap,
            row_dim=1,
            col_dim=2,
            num_rows=num_res,
            what="templates to columns",
        )
        t_col = relayout_with_work(t_row, partial(self.layer_norm, plan=plan), to_col)
        return join_sharded(t_col, dim=0).unflatten(0, (batch, num_templates))
