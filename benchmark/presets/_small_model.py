"""Small AlphaFold2 models for two CPU cores, with every module of the benchmark's model."""

from __future__ import annotations

import dataclasses

from openfold_opt.losses.config import (
    DistogramLossConfig,
    FapeLossConfig,
    LossConfig,
    MaskedMSALossConfig,
)
from openfold_opt.model.auxiliary_heads import AuxiliaryHeadsConfig
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.input_embedder import InputEmbedderConfig
from openfold_opt.model.structure_module import StructureModuleConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttentionConfig

_C_PAIR = 32


def small_model() -> ModelConfig:
    """Return a model of 380,642 parameters.

    It has one Evoformer block, one extra MSA block, one template block, and four blocks of a
    relatively wide structure module, which matters most in a short run (docs/lab_log.md).
    """
    pair = {  # The same in both stacks.
        "c_hidden_outer_product": 8,
        "c_hidden_triangle_multiplication": _C_PAIR,
        "c_hidden_triangle_attention": 8,
        "num_heads_triangle": 4,
        "transition_factor": 2,
    }
    return ModelConfig(
        c_m=32,
        c_z=_C_PAIR,
        c_s=128,
        c_e=16,
        c_t=16,
        template_pair_stack=TemplatePairStackConfig(
            num_blocks=1,
            c_hidden_triangle_attention=8,
            num_heads_triangle=2,
            c_hidden_triangle_multiplication=16,
        ),
        template_pointwise_attention=TemplatePointwiseAttentionConfig(c_hidden=8, num_heads=2),
        extra_msa_stack=ExtraMSAStackConfig(
            num_blocks=1, c_hidden_msa_attention=8, num_heads_msa=2, **pair
        ),
        evoformer_stack=EvoformerStackConfig(
            num_blocks=1, c_hidden_msa_attention=8, num_heads_msa=4, **pair
        ),
        structure_module=StructureModuleConfig(num_blocks=4, num_heads=8, c_hidden_angles=32),
        auxiliary_heads=AuxiliaryHeadsConfig(c_hidden_lddt=32),
    )


def single_chain_model() -> ModelConfig:
    """Return a model of 572,642 parameters, for fitting single chains.

    It has a wide pair representation, one Evoformer block and six blocks of the structure module.
    Relative positions up to 100 residues are distinguished, which identifies every pair.
    """
    pair = {
        "c_hidden_outer_product": 8,
        "c_hidden_triangle_multiplication": 64,
        "c_hidden_triangle_attention": 8,
        "num_heads_triangle": 2,
        "transition_factor": 4,
    }
    small = small_model()
    return dataclasses.replace(
        small,
        c_z=64,
        c_s=128,
        input_embedder=InputEmbedderConfig(max_relative_position=100),
        extra_msa_stack=ExtraMSAStackConfig(
            num_blocks=1, c_hidden_msa_attention=8, num_heads_msa=2, **pair
        ),
        evoformer_stack=EvoformerStackConfig(
            num_blocks=1, c_hidden_msa_attention=8, num_heads_msa=4, **pair
        ),
        structure_module=StructureModuleConfig(num_blocks=6, num_heads=8, c_hidden_angles=32),
    )


def backbone_first_loss() -> LossConfig:
    """Return the terms of the benchmark with more weight on the backbone, for short runs."""
    return LossConfig(
        fape=FapeLossConfig(backbone_weight=0.95, sidechain_weight=0.05),
        distogram=DistogramLossConfig(),
        masked_msa=MaskedMSALossConfig(weight=0.1),
    )
