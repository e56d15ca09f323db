"""Translate the configuration of a golden directory to our ModelConfig.

The field names are those of the MLCommons reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openfold_opt.model.auxiliary_heads import AuxiliaryHeadsConfig
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.input_embedder import InputEmbedderConfig
from openfold_opt.model.recycling_embedder import RecyclingEmbedderConfig
from openfold_opt.model.structure_module import StructureModuleConfig
from openfold_opt.model.template_pair_embedder import TemplatePairEmbedderConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttentionConfig

_STACK = {
    "num_blocks": "num_blocks",
    "c_hidden_msa_attention": "c_hidden_msa_att",
    "num_heads_msa": "num_heads_msa",
    "c_hidden_outer_product": "c_hidden_opm",
    "c_hidden_triangle_multiplication": "c_hidden_tri_mul",
    "c_hidden_triangle_attention": "c_hidden_tri_att",
    "num_heads_triangle": "num_heads_tri",
    "transition_factor": "transition_n",
    "msa_dropout_rate": "msa_dropout",
    "pair_dropout_rate": "pair_dropout",
    "mask_inf": "inf",
    "outer_product_eps": "eps_opm",
}
_TEMPLATE_STACK = {
    "num_blocks": "num_blocks",
    "c_hidden_triangle_attention": "c_hidden_tri_att",
    "num_heads_triangle": "num_heads_tri",
    "c_hidden_triangle_multiplication": "c_hidden_tri_mul",
    "transition_factor": "pair_transition_n",
    "dropout_rate": "dropout_rate",
    "mask_inf": "inf",
}
_STRUCTURE = {
    "num_blocks": "num_blocks",
    "c_hidden_point_attention": "c_hidden_ipa",
    "num_heads": "num_heads_ipa",
    "num_qk_points": "num_qk_points",
    "num_v_points": "num_v_points",
    "c_hidden_angles": "c_hidden_ang_res",
    "num_angle_blocks": "num_ang_res_blocks",
    "dropout_rate": "dropout_rate",
    "position_scale_angstrom": "scale_factor",
    "mask_inf": "inf",
    "eps": "eps",
}
_RECYCLING = {
    "min_bin_angstrom": "min_bin",
    "max_bin_angstrom": "max_bin",
    "num_bins": "num_bins",
    "inf": "inf",
}


def model_config(golden: Mapping[str, Any]) -> ModelConfig:
    """Return the model configuration of a golden config.json.

    Raises ValueError if a field is missing.
    """
    try:
        return _model_config(golden)
    except KeyError as error:
        raise ValueError(
            f"config.json has no field {error}; expected the configuration of the MLCommons "
            "reference"
        ) from error


def _model_config(golden: Mapping[str, Any]) -> ModelConfig:
    extra, evoformer = golden["extra_msa_stack_config"], golden["evoformer_stack_config"]
    pointwise = golden["template_pointwise_attention_config"]
    prefix = "template_pair_feat_"
    return ModelConfig(
        c_m=evoformer["c_m"],
        c_z=evoformer["c_z"],
        c_s=evoformer["c_s"],
        c_e=extra["c_e"],
        c_t=golden["template_pair_stack_config"]["c_t"],
        input_embedder=InputEmbedderConfig(
            max_relative_position=golden["input_embedder_config"]["relpos_k"]
        ),
        recycling_embedder=RecyclingEmbedderConfig(
            **_renamed(golden["recycling_embedder_config"], _RECYCLING)
        ),
        template_pair_embedder=TemplatePairEmbedderConfig(
            min_bin_angstrom=golden[prefix + "distogram_min_bin"],
            max_bin_angstrom=golden[prefix + "distogram_max_bin"],
            num_bins=golden[prefix + "distogram_num_bins"],
            inf=golden[prefix + "inf"],
        ),
        template_pair_stack=TemplatePairStackConfig(
            **_renamed(golden["template_pair_stack_config"], _TEMPLATE_STACK)
        ),
        template_pointwise_attention=TemplatePointwiseAttentionConfig(
            c_hidden=pointwise["c_hidden"],
            num_heads=pointwise["num_heads"],
            mask_inf=pointwise["inf"],
        ),
        extra_msa_stack=ExtraMSAStackConfig(
            **_renamed(extra, _STACK | {"global_attention_eps": "eps"})
        ),
        evoformer_stack=EvoformerStackConfig(**_renamed(evoformer, _STACK)),
        structure_module=StructureModuleConfig(
            **_renamed(golden["structure_module_config"], _STRUCTURE)
        ),
        auxiliary_heads=_heads_config(golden["auxiliary_heads_config"]),
    )


def _heads_config(golden: Mapping[str, Any]) -> AuxiliaryHeadsConfig:
    lddt, tm_score = golden["per_residue_lddt_ca_predictor_config"], golden["tm_score_head_config"]
    return AuxiliaryHeadsConfig(
        c_hidden_lddt=lddt["c_hidden"],
        num_bins_lddt=lddt["num_bins"],
        num_bins_distogram=golden["distogram_head_config"]["num_bins"],
        has_tm_score=golden["tm_score_head_enabled"],
        num_bins_aligned_error=tm_score["num_bins"],
        max_bin_aligned_error_angstrom=float(tm_score["max_bin"]),
    )


def _renamed(golden: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `golden` under our names. names: ours -> theirs."""
    return {ours: golden[theirs] for ours, theirs in names.items()}
