"""The stack that updates the pair representation from the unclustered MSA."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.dropout import EXTRA_MSA_STACK, PassDropout
from openfold_opt.model.evoformer_block import ExtraMSABlock, ExtraMSAStackConfig
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import MSAMasks, PairMasks, StackShape, draw_dropout, run_block


class ExtraMSAStack(nn.Module):
    """Algorithm 18 (ExtraMsaStack)."""

    def __init__(self, config: ExtraMSAStackConfig, *, c_e: int, c_z: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            ExtraMSABlock(config, c_e=c_e, c_z=c_z) for _ in range(config.num_blocks)
        )

    def forward(
        self,
        e: Tensor,
        z: Tensor,
        masks: tuple[Tensor, Tensor],
        dropout: PassDropout | None,
        plan: ExecutionPlan,
    ) -> Tensor:
        """Run all blocks.

        Args:
            e: [batch, N_extra/dap, N_res, c_e]
            z: [batch, N_res, N_res/dap, c_z]
            masks: extra_msa_mask [batch, N_extra, N_res] and pair_mask [batch, N_res, N_res].
            dropout: None disables dropout.
            plan: kernels, DAP axis and recomputation.

        Returns:
            Updated z.
        """
        config = self.config
        shape = StackShape(
            part=EXTRA_MSA_STACK,
            num_blocks=config.num_blocks,
            num_res=z.shape[1],
            c_pair=z.shape[-1],
            pair_rate=config.pair_dropout_rate,
            c_msa=e.shape[-1],
            msa_rate=config.msa_dropout_rate,
        )
        block_masks = (
            MSAMasks.build(masks[0], plan, eps=config.outer_product_eps),
            PairMasks.build(masks[1], plan),
        )
        for index, (block, block_dropout) in enumerate(
            zip(self.blocks, draw_dropout(shape, dropout, plan))
        ):
            e, z = run_block(block, index, plan, e, z, block_masks, block_dropout)
        return z
