"""The Evoformer stack, the trunk of the model, and the base of the two MSA stacks."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from openfold_opt.model.dropout import EVOFORMER_STACK, PassDropout
from openfold_opt.model.evoformer_block import EvoformerBlock, EvoformerStackConfig
from openfold_opt.model.linear import Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import MSAMasks, PairMasks, StackShape, draw_dropout, run_block


class MSAStack(nn.Module):
    """Base of EvoformerStack and ExtraMSAStack, which differ in their blocks."""

    part: ClassVar[int]
    """Part of the model in the numbers of dropout sites."""
    config: EvoformerStackConfig
    blocks: nn.ModuleList

    def forward(
        self,
        m: Tensor,
        z: Tensor,
        masks: tuple[Tensor, Tensor],
        dropout: PassDropout | None,
        plan: ExecutionPlan,
    ) -> tuple[Tensor, Tensor]:
        """Run all blocks.

        Args:
            m: [batch, N_seq/dap, N_res, c_m]
            z: [batch, N_res, N_res/dap, c_z]
            masks: the MSA mask [batch, N_seq, N_res] and pair_mask [batch, N_res, N_res].
            dropout: None disables dropout.
            plan: kernels, DAP axis and recomputation.

        Returns:
            Updated m and z.
        """
        config = self.config
        shape = StackShape(
            part=self.part,
            num_blocks=config.num_blocks,
            num_res=z.shape[1],
            c_pair=z.shape[-1],
            pair_rate=config.pair_dropout_rate,
            c_msa=m.shape[-1],
            msa_rate=config.msa_dropout_rate,
        )
        block_masks = (
            MSAMasks.build(masks[0], plan, eps=config.outer_product_eps, dtype=m.dtype),
            PairMasks.build(masks[1], plan),
        )
        for index, (block, block_dropout) in enumerate(
            zip(self.blocks, draw_dropout(shape, dropout, plan))
        ):
            m, z = run_block(plan.recomputes(index), block, m, z, block_masks, block_dropout, plan)
        return m, z


class EvoformerStack(MSAStack):
    """Algorithm 6 (EvoformerStack)."""

    part = EVOFORMER_STACK

    def __init__(self, config: EvoformerStackConfig, *, c_m: int, c_z: int, c_s: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            EvoformerBlock(config, c_m=c_m, c_z=c_z) for _ in range(config.num_blocks)
        )
        self.linear = Linear(c_m, c_s)

    def single(self, first_row: Tensor) -> Tensor:
        """Compute the single representation [batch, N_res, c_s] (Algorithm 6, line 12).

        Args:
            first_row: [batch, N_res, c_m], the first row of the MSA representation.
        """
        return self.linear(first_row)
