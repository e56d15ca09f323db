"""Blocks of the Evoformer and of the extra MSA stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from openfold_opt.model.axial_schedule import attend_within_msa, update_msa_and_pairs
from openfold_opt.model.msa_column_attention import MSAColumnAttention
from openfold_opt.model.msa_column_global_attention import MSAColumnGlobalAttention
from openfold_opt.model.msa_row_attention import MSARowAttentionWithPairBias
from openfold_opt.model.outer_product_mean import OuterProductMean
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, MSAMasks, PairMasks
from openfold_opt.model.transition import MSATransition, PairTransition
from openfold_opt.model.triangle_attention import (
    TriangleAttentionEndingNode,
    TriangleAttentionStartingNode,
)
from openfold_opt.model.triangle_multiplication import (
    TriangleMultiplicationIncoming,
    TriangleMultiplicationOutgoing,
)


@dataclass(frozen=True, kw_only=True)
class EvoformerStackConfig:
    """Configuration of EvoformerStack; hidden sizes of attention are per head."""

    category: ClassVar[str] = "mathematical"

    num_blocks: int = 48
    c_hidden_msa_attention: int = 32
    num_heads_msa: int = 8
    c_hidden_outer_product: int = 32
    c_hidden_triangle_multiplication: int = 128
    c_hidden_triangle_attention: int = 32
    num_heads_triangle: int = 4
    transition_factor: int = 4
    msa_dropout_rate: float = 0.15
    pair_dropout_rate: float = 0.25
    mask_inf: float = 1e9
    """Subtracted from the attention logits of masked elements."""
    outer_product_eps: float = 1e-3
    """Added to the divisor of the outer product mean, a number of sequences."""


@dataclass(frozen=True, kw_only=True)
class ExtraMSAStackConfig(EvoformerStackConfig):
    """Configuration of ExtraMSAStack."""

    num_blocks: int = 4
    c_hidden_msa_attention: int = 8
    global_attention_eps: float = 1e-8
    """Added to the divisor of the mean query of global attention, a number of rows."""


class EvoformerBlockCore(nn.Module):
    """Algorithm 6, lines 4-10: MSA transition, outer product mean and pair updates."""

    def __init__(self, config: EvoformerStackConfig, *, c_m: int, c_z: int) -> None:
        super().__init__()
        attention = {
            "c_hidden": config.c_hidden_triangle_attention,
            "num_heads": config.num_heads_triangle,
            "mask_inf": config.mask_inf,
        }
        c_hidden = config.c_hidden_triangle_multiplication
        self.msa_transition = MSATransition(c_m, factor=config.transition_factor)
        self.outer_product_mean = OuterProductMean(c_m, c_z, c_hidden=config.c_hidden_outer_product)
        self.tri_mul_out = TriangleMultiplicationOutgoing(c_z, c_hidden=c_hidden)
        self.tri_mul_in = TriangleMultiplicationIncoming(c_z, c_hidden=c_hidden)
        self.tri_att_start = TriangleAttentionStartingNode(c_z, **attention)
        self.tri_att_end = TriangleAttentionEndingNode(c_z, **attention)
        self.pair_transition = PairTransition(c_z, factor=config.transition_factor)

    def forward(
        self,
        m_col: Tensor,
        z_row: Callable[[], Tensor],
        masks: tuple[MSAMasks, PairMasks],
        dropout: BlockDropout,
        plan: ExecutionPlan,
    ) -> tuple[Tensor, Tensor]:
        """Update both representations.

        Args:
            m_col: [batch, N_seq, N_res/dap, c_m]
            z_row: waits for [batch, N_res/dap, N_res, c_z] and returns it.
            masks: masks of the MSA and of the pairs.
            dropout: dropout masks of this block.
            plan: kernels and DAP axis.

        Returns:
            m_row: [batch, N_seq/dap, N_res, c_m], z_col: [batch, N_res, N_res/dap, c_z]
        """
        return update_msa_and_pairs(self, m_col, z_row, masks, dropout=dropout, plan=plan)


class MSABlock(nn.Module):
    """Base of EvoformerBlock and ExtraMSABlock, which differ in the attention along columns."""

    msa_att_row: MSARowAttentionWithPairBias
    msa_att_col: MSAColumnAttention | MSAColumnGlobalAttention
    core: EvoformerBlockCore

    def forward(
        self,
        m_row: Tensor,
        z_col: Tensor,
        masks: tuple[MSAMasks, PairMasks],
        dropout: BlockDropout,
        plan: ExecutionPlan,
    ) -> tuple[Tensor, Tensor]:
        """Update m_row [batch, N_seq/dap, N_res, c_m] and z_col [batch, N_res, N_res/dap, c_z]."""
        m_col, z_row = attend_within_msa(self, m_row, z_col, masks[0], dropout=dropout, plan=plan)
        return self.core(m_col, z_row, masks, dropout, plan)


class EvoformerBlock(MSABlock):
    """One block of Algorithm 6 (EvoformerStack)."""

    def __init__(self, config: EvoformerStackConfig, *, c_m: int, c_z: int) -> None:
        super().__init__()
        attention = {
            "c_hidden": config.c_hidden_msa_attention,
            "num_heads": config.num_heads_msa,
            "mask_inf": config.mask_inf,
        }
        self.msa_att_row = MSARowAttentionWithPairBias(c_m, c_z, **attention)
        self.msa_att_col = MSAColumnAttention(c_m, **attention)
        self.core = EvoformerBlockCore(config, c_m=c_m, c_z=c_z)


class ExtraMSABlock(MSABlock):
    """One block of Algorithm 18 (ExtraMsaStack)."""

    def __init__(self, config: ExtraMSAStackConfig, *, c_e: int, c_z: int) -> None:
        super().__init__()
        attention = {
            "c_hidden": config.c_hidden_msa_attention,
            "num_heads": config.num_heads_msa,
            "mask_inf": config.mask_inf,
        }
        self.msa_att_row = MSARowAttentionWithPairBias(c_e, c_z, **attention)
        self.msa_att_col = MSAColumnGlobalAttention(
            c_e, eps=config.global_attention_eps, **attention
        )
        self.core = EvoformerBlockCore(config, c_m=c_e, c_z=c_z)
