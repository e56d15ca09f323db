"""Configuration of a very small model."""

from __future__ import annotations

import torch

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.auxiliary_heads import AuxiliaryHeadsConfig
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.structure_module import StructureModuleConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttentionConfig

_STACK = {
    "num_blocks": 2,
    "c_hidden_msa_attention": 3,
    "num_heads_msa": 2,
    "c_hidden_outer_product": 5,
    "c_hidden_triangle_multiplication": 7,
    "c_hidden_triangle_attention": 3,
    "num_heads_triangle": 2,
    "transition_factor": 2,
}


def tiny_model() -> ModelConfig:
    """Return a configuration in which all sizes differ; dropout is that of the benchmark."""
    return ModelConfig(
        c_m=12,
        c_z=10,
        c_s=14,
        c_e=6,
        c_t=8,
        template_pair_stack=TemplatePairStackConfig(
            num_blocks=1,
            c_hidden_triangle_attention=3,
            num_heads_triangle=2,
            c_hidden_triangle_multiplication=5,
        ),
        template_pointwise_attention=TemplatePointwiseAttentionConfig(c_hidden=3, num_heads=2),
        extra_msa_stack=ExtraMSAStackConfig(**(_STACK | {"num_blocks": 1})),
        evoformer_stack=EvoformerStackConfig(**_STACK),
        structure_module=StructureModuleConfig(
            num_blocks=2, c_hidden_point_attention=4, num_heads=3, num_v_points=5, c_hidden_angles=9
        ),
        auxiliary_heads=AuxiliaryHeadsConfig(c_hidden_lddt=11, has_tm_score=True),
    )


def randomized(config: ModelConfig, *, seed: int = 0) -> AlphaFold:
    """Build a model with random values added to all parameters, so that no layer is zero."""
    model = AlphaFold(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
