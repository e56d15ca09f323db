"""The stack that updates the pair representation from the unclustered MSA."""

from __future__ import annotations

from torch import nn

from openfold_opt.model.dropout import EXTRA_MSA_STACK
from openfold_opt.model.evoformer_block import ExtraMSABlock, ExtraMSAStackConfig
from openfold_opt.model.evoformer_stack import MSAStack


class ExtraMSAStack(MSAStack):
    """Algorithm 18 (ExtraMsaStack). Only the pair representation is used after it."""

    part = EXTRA_MSA_STACK

    def __init__(self, config: ExtraMSAStackConfig, *, c_e: int, c_z: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            ExtraMSABlock(config, c_e=c_e, c_z=c_z) for _ in range(config.num_blocks)
        )
