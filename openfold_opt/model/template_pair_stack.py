"""The stack that refines the pair representation of each template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from openfold_opt.model.dropout import TEMPLATE_PAIR_STACK, PassDropout
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, PairMasks, StackShape, draw_dropout, run_block
from openfold_opt.model.template_schedule import (
    normalize_in_columns,
    split_groups,
    update_templates,
)
from openfold_opt.model.transition import PairTransition
from openfold_opt.model.triangle_attention import (
    TriangleAttentionEndingNode,
    TriangleAttentionStartingNode,
)
from openfold_opt.model.triangle_multiplication import (
    TriangleMultiplicationIncoming,
    TriangleMultiplicationOutgoing,
)


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
        self, t_row: Sequence[Tensor], masks: PairMasks, dropout: BlockDropout, plan: ExecutionPlan
    ) -> list[Tensor]:
        """Update groups of [batch * N_templ, N_res/dap, N_res, c_t].

        masks and dropout cover all groups.
        """
        return update_templates(self, t_row, masks, dropout, plan)


class TemplatePairStack(nn.Module):
    """Algorithm 16 (TemplatePairStack).

    Templates are independent and are part of the batch dim.
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
        plan = plan.with_chunks_of(t.nbytes)
        shape = StackShape(
            part=TEMPLATE_PAIR_STACK,
            num_blocks=self.config.num_blocks,
            num_res=num_res,
            c_pair=c_t,
            pair_rate=self.config.dropout_rate,
            leading=(num_templates,),
        )
        masks = PairMasks.build(pair_mask.repeat_interleave(num_templates, dim=0), plan)
        t_row: Sequence[Tensor] = split_groups(t.flatten(0, 1), plan)
        for index, (block, block_dropout) in enumerate(
            zip(self.blocks, draw_dropout(shape, dropout, plan))
        ):
            t_row = run_block(plan.recomputes(index), block, t_row, masks, block_dropout, plan)
        t_col = normalize_in_columns(t_row, self.layer_norm, plan)
        return t_col.unflatten(0, (batch, num_templates))
