"""Translate the configuration of the MLCommons reference to our ModelConfig."""

from __future__ import annotations

from collections.abc import Mapping

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


def reference_model_config(tree: Mapping[str, object]) -> ModelConfig:
    """Return the sizes of the model from the reference's configuration, the content of config.json.

    Raises ValueError if a field is missing.
    """
    try:
        return _model_config(tree)
    except KeyError as error:
        raise ValueError(
            f"config.json has no field {error}; expected the configuration of the MLCommons "
            "reference"
        ) from error


def _model_config(tree: Mapping[str, object]) -> ModelConfig:
    extra, evoformer = (_part(tree, f"{name}_stack_config") for name in ("extra_msa", "evoformer"))
    template_stack = _part(tree, "template_pair_stack_config")
    pointwise = _part(tree, "template_pointwise_attention_config")
    prefix = "template_pair_feat_"
    return ModelConfig(
        c_m=evoformer["c_m"],
        c_z=evoformer["c_z"],
        c_s=evoformer["c_s"],
        c_e=extra["c_e"],
        c_t=template_stack["c_t"],
        input_embedder=InputEmbedderConfig(
            max_relative_position=_part(tree, "input_embedder_config")["relpos_k"]
        ),
        recycling_embedder=RecyclingEmbedderConfig(
            **_renamed(_part(tree, "recycling_embedder_config"), _RECYCLING)
        ),
        template_pair_embedder=TemplatePairEmbedderConfig(
            min_bin_angstrom=tree[prefix + "distogram_min_bin"],
            max_bin_angstrom=tree[prefix + "distogram_max_bin"],
            num_bins=tree[prefix + "distogram_num_bins"],
            inf=tree[prefix + "inf"],
        ),
        template_pair_stack=TemplatePairStackConfig(**_renamed(template_stack, _TEMPLATE_STACK)),
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
            **_renamed(_part(tree, "structure_module_config"), _STRUCTURE)
        ),
        auxiliary_heads=_heads_config(_part(tree, "auxiliary_heads_config")),
    )


def _heads_config(heads: Mapping[str, object]) -> AuxiliaryHeadsConfig:
    lddt = _part(heads, "per_residue_lddt_ca_predictor_config")
    tm_score = _part(heads, "tm_score_head_config")
    return AuxiliaryHeadsConfig(
        c_hidden_lddt=lddt["c_hidden"],
        num_bins_lddt=lddt["num_bins"],
        num_bins_distogram=_part(heads, "distogram_head_config")["num_bins"],
        has_tm_score=heads["tm_score_head_enabled"],
        num_bins_aligned_error=tm_score["num_bins"],
        max_bin_aligned_error_angstrom=float(tm_score["max_bin"]),
    )


def _part(tree: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = tree[name]
    if not isinstance(part, Mapping):
        raise ValueError(f"{name} is {part!r}, expected an object with fields")
    return part


def _renamed(part: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """Return the values of a part under our names. names: ours -> theirs."""
    return {ours: part[theirs] for ours, theirs in names.items()}
