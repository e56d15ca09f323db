"""A small model and random batches for it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from openfold_opt.geometry.atoms import make_atom14_masks
from openfold_opt.model.auxiliary_heads import AuxiliaryHeadsConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.structure_module import StructureModuleConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttentionConfig
from openfold_opt.protein.features import FEATURES

SIZES = {"batch": 2, "num_passes": 3, "N_res": 8, "N_clust": 4, "N_extra": 6, "N_templ": 2}
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


@pytest.fixture
def small_config() -> ModelConfig:
    """Every size different, dropout as in the benchmark."""
    return ModelConfig(
        c_m=12,
        c_z=10,
        c_s=14,
        c_e=6,
        c_t=8,
        template_pair_stack=TemplatePairStackConfig(
            num_blocks=1, c_hidden_triangle_attention=3, num_heads_triangle=2, c_hidden_triangle_multiplication=5
        ),
        template_pointwise_attention=TemplatePointwiseAttentionConfig(c_hidden=3, num_heads=2),
        extra_msa_stack=ExtraMSAStackConfig(**(_STACK | {"num_blocks": 1})),
        evoformer_stack=EvoformerStackConfig(**_STACK),
        structure_module=StructureModuleConfig(
            num_blocks=2, c_hidden_point_attention=4, num_heads=3, num_v_points=5, c_hidden_angles=9
        ),
        auxiliary_heads=AuxiliaryHeadsConfig(c_hidden_lddt=11, has_tm_score=True),
    )


@pytest.fixture
def random_features() -> dict[str, torch.Tensor]:
    """Random features of the sizes SIZES; everything exists."""
    generator = torch.Generator().manual_seed(0)
    features = {}
    for name, spec in FEATURES.items():
        shape = tuple(SIZES.get(dim, dim) for dim in spec.leading_dims(batched=True) + spec.shape)
        if spec.dtype.kind == "i":
            features[name] = torch.randint(0, 14, shape, generator=generator)
        elif spec.unit == "0 or 1":
            features[name] = torch.ones(shape)
        else:
            features[name] = torch.randn(shape, generator=generator)
    features["residue_index"] = torch.arange(SIZES["N_res"]).repeat(SIZES["batch"], 1)
    features.update(make_atom14_masks(features["aatype"]))
    return features


@pytest.fixture
def random_batch(random_features) -> FeatureBatch:
    """The same as a batch."""
    return FeatureBatch.from_features(random_features)


@pytest.fixture
def without_dropout():
    """Turns a configuration into one whose dropout rates are all zero."""

    def turn(config: ModelConfig) -> ModelConfig:
        stacks = {
            name: dataclasses.replace(getattr(config, name), msa_dropout_rate=0.0, pair_dropout_rate=0.0)
            for name in ("evoformer_stack", "extra_msa_stack")
        }
        return dataclasses.replace(
            config,
            template_pair_stack=dataclasses.replace(config.template_pair_stack, dropout_rate=0.0),
            structure_module=dataclasses.replace(config.structure_module, dropout_rate=0.0),
            **stacks,
        )

    return turn
