"""The stack that refines the pair representation of every template."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar

from torch import Tensor, nn

from openfold_opt.model.dropout import TEMPLATE_PAIR_STACK, PassDropout
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, PairMasks, StackShape, draw_dropout, run_block
from openfold_opt.model.transition import PairTransition
from openfold_opt.model.triangle_attention import TriangleAttentionEndingNode, TriangleAttentionStartingNode
from openfold_opt.model.triangle_multiplication import TriangleMultiplicationIncoming, TriangleMultiplicationOutgoing
from openfold_opt.parallel.collectives import col_to_row
from openfold_opt.parallel.pieces import cut_spread, join_whole, piece_lengths, pieces_to_col


@dataclass(frozen=True, kw_only=True)
class TemplatePairStackConfig:
    """Configuration of TemplatePairStack; hidden sizes are per head where there are heads."""

    closed_division: ClassVar[str] = "mathematical"

    num_blocks: int = 2
    c_hidden_triangle_attention: int = 16
    num_heads_triangle: int = 4
    c_hidden_triangle_multiplication: int = 64
    transition_factor: int = 2
    dropout_rate: float = 0.25
    mask_inf: float = 1e9
    """Subtracted from attention logits of what does not exist."""


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

    def forward(self, t_col: Tensor, masks: PairMasks, dropout: BlockDropout, plan: ExecutionPlan) -> Tensor:
        """t_col: [batch * N_templ, N_res, N_res/dap, c_t], updated"""
        num_res, axis = t_col.shape[1], plan.dap
        t_row = col_to_row(t_col, axis, row_dim=1, col_dim=2, num_cols=num_res, what="templates to rows")
        t = self.tri_att_start(cut_spread(t_row, axis, dim=1), masks.row, dropout.starting, plan)
        t = pieces_to_col(t, axis, num_rows=piece_lengths(num_res, axis), what="templates to columns")
        t_col = self.tri_att_end(t, masks.col, dropout.ending, plan)
        t_row = col_to_row(t_col, axis, row_dim=1, col_dim=2, num_cols=num_res, what="templates to rows")
        t = self.tri_mul_out(cut_spread(t_row, axis, dim=1), masks.row, dropout.outgoing, plan)
        t = pieces_to_col(t, axis, num_rows=repeat(num_res), what="templates to columns")
        t = self.tri_mul_in(t, masks.col, dropout.incoming, plan)
        t_col = join_whole(t, axis, dim=1)
        return self.pair_transition(t_col, plan)


class TemplatePairStack(nn.Module):
    """Algorithm 16 (TemplatePairStack). The templates do not see each other: they are part of the batch."""

    def __init__(self, config: TemplatePairStackConfig, *, c_t: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(TemplatePairBlock(config, c_t=c_t) for _ in range(config.num_blocks))
        self.layer_norm = LayerNorm(c_t)

    def forward(self, t: Tensor, pair_mask: Tensor, dropout: PassDropout | None, plan: ExecutionPlan) -> Tensor:
        """t: [batch, N_templ, N_res, N_res/dap, c_t]; pair_mask: [batch, N_res, N_res] -> t updated and normalised"""
        batch, num_templates, num_res = t.shape[:3]
        shape = StackShape(
            part=TEMPLATE_PAIR_STACK,
            num_blocks=self.config.num_blocks,
            num_res=num_res,
            c_pair=t.shape[-1],
            pair_rate=self.config.dropout_rate,
            leading=(num_templates,),
        )
        masks = PairMasks.build(pair_mask.repeat_interleave(num_templates, dim=0), plan)
        t_col = t.flatten(0, 1)
        for index, (block, block_dropout) in enumerate(zip(self.blocks, draw_dropout(shape, dropout, plan))):
            t_col = run_block(block, index, plan, t_col, masks, block_dropout)
        return self.layer_norm(t_col.unflatten(0, (batch, num_templates)), plan)
