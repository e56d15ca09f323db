"""Array names of AlphaFold's parameter files, for each layer of our model.

The names are those of the modules of AlphaFold's JAX code, without the prefix that all share. A
double slash separates a module from its array.
"""

PREFIX = "alphafold/alphafold_iteration/"
"""Start of every name in a parameter file."""

_TEMPLATE = "evoformer/template_embedding/single_template_embedding"

STACKS = {
    "evoformer_stack": "evoformer/evoformer_iteration",
    "extra_msa_stack": "evoformer/extra_msa_stack",
    "template_pair_stack": f"{_TEMPLATE}/template_pair_stack/__layer_stack_no_state",
}
"""Our stack -> the module whose arrays hold all blocks of the stack along their first dim."""

_ROW = "msa_row_attention_with_pair_bias"
_START, _END = "triangle_attention_starting_node", "triangle_attention_ending_node"
_OUTGOING, _INCOMING = "triangle_multiplication_outgoing", "triangle_multiplication_incoming"
_POINT_ATTENTION = "structure_module/fold_iteration/invariant_point_attention"
_FOLD = "structure_module/fold_iteration"
_SIDE_CHAIN = "structure_module/fold_iteration/rigid_sidechain"

BLOCK_LINEARS = {
    "outer_product_mean.linear_1": "outer_product_mean/left_projection",
    "outer_product_mean.linear_2": "outer_product_mean/right_projection",
    "msa_transition.linear_1": "msa_transition/transition1",
    "msa_transition.linear_2": "msa_transition/transition2",
    "pair_transition.linear_1": "pair_transition/transition1",
    "pair_transition.linear_2": "pair_transition/transition2",
    "tri_mul_out.linear_a_p": f"{_OUTGOING}/left_projection",
    "tri_mul_out.linear_a_g": f"{_OUTGOING}/left_gate",
    "tri_mul_out.linear_b_p": f"{_OUTGOING}/right_projection",
    "tri_mul_out.linear_b_g": f"{_OUTGOING}/right_gate",
    "tri_mul_out.linear_z": f"{_OUTGOING}/output_projection",
    "tri_mul_out.linear_g": f"{_OUTGOING}/gating_linear",
    # In the incoming multiplication, AlphaFold's left side is the edge from k to j, which the
    # supplement (Algorithm 12) and our module name b.
    "tri_mul_in.linear_a_p": f"{_INCOMING}/right_projection",
    "tri_mul_in.linear_a_g": f"{_INCOMING}/right_gate",
    "tri_mul_in.linear_b_p": f"{_INCOMING}/left_projection",
    "tri_mul_in.linear_b_g": f"{_INCOMING}/left_gate",
    "tri_mul_in.linear_z": f"{_INCOMING}/output_projection",
    "tri_mul_in.linear_g": f"{_INCOMING}/gating_linear",
}
"""Layers of a block with a weight and a bias."""

BLOCK_NORMS = {
    "msa_att_row.layer_norm_m": f"{_ROW}/query_norm",
    "msa_att_row.layer_norm_z": f"{_ROW}/feat_2d_norm",
    "outer_product_mean.layer_norm": "outer_product_mean/layer_norm_input",
    "msa_transition.layer_norm": "msa_transition/input_layer_norm",
    "pair_transition.layer_norm": "pair_transition/input_layer_norm",
    "tri_att_start.layer_norm": f"{_START}/query_norm",
    "tri_att_end.layer_norm": f"{_END}/query_norm",
    "tri_mul_out.layer_norm_in": f"{_OUTGOING}/layer_norm_input",
    "tri_mul_out.layer_norm_out": f"{_OUTGOING}/center_layer_norm",
    "tri_mul_in.layer_norm_in": f"{_INCOMING}/layer_norm_input",
    "tri_mul_in.layer_norm_out": f"{_INCOMING}/center_layer_norm",
}
"""Normalizations of a block."""

COLUMN_ATTENTIONS = {
    "evoformer_stack": "msa_column_attention",
    "extra_msa_stack": "msa_column_global_attention",
}
"""Column attention of each stack that has one. Its normalization is query_norm."""

BLOCK_ATTENTIONS = {
    "msa_att_row.mha": f"{_ROW}/attention",
    "tri_att_start.mha": f"{_START}/attention",
    "tri_att_end.mha": f"{_END}/attention",
}
"""Attentions of a block, without the column attention."""

BLOCK_PAIR_BIASES = {
    "msa_att_row.linear_z": f"{_ROW}//feat_2d_weights",
    "tri_att_start.linear": f"{_START}//feat_2d_weights",
    "tri_att_end.linear": f"{_END}//feat_2d_weights",
}
"""Layers of a block that have one array, their weight."""

LINEARS = {
    "input_embedder.linear_tf_z_i": "evoformer/left_single",
    "input_embedder.linear_tf_z_j": "evoformer/right_single",
    "input_embedder.linear_tf_m": "evoformer/preprocess_1d",
    "input_embedder.linear_msa_m": "evoformer/preprocess_msa",
    "input_embedder.linear_relpos": "evoformer/pair_activiations",
    "recycling_embedder.linear": "evoformer/prev_pos_linear",
    "template_angle_embedder.linear_1": "evoformer/template_single_embedding",
    "template_angle_embedder.linear_2": "evoformer/template_projection",
    "template_pair_embedder.linear": f"{_TEMPLATE}/embedding2d",
    "extra_msa_embedder.linear": "evoformer/extra_msa_activations",
    "evoformer_stack.linear": "evoformer/single_activations",
    "structure_module.linear_in": "structure_module/initial_projection",
    "structure_module.ipa.linear_q": f"{_POINT_ATTENTION}/q_scalar",
    "structure_module.ipa.linear_kv": f"{_POINT_ATTENTION}/kv_scalar",
    "structure_module.ipa.linear_q_points": f"{_POINT_ATTENTION}/q_point_local",
    "structure_module.ipa.linear_kv_points": f"{_POINT_ATTENTION}/kv_point_local",
    "structure_module.ipa.linear_b": f"{_POINT_ATTENTION}/attention_2d",
    "structure_module.ipa.linear_out": f"{_POINT_ATTENTION}/output_projection",
    "structure_module.transition.linear_1": f"{_FOLD}/transition",
    "structure_module.transition.linear_2": f"{_FOLD}/transition_1",
    "structure_module.transition.linear_3": f"{_FOLD}/transition_2",
    "structure_module.bb_update.linear": f"{_FOLD}/affine_update",
    "structure_module.angle_resnet.linear_in": f"{_SIDE_CHAIN}/input_projection",
    "structure_module.angle_resnet.linear_initial": f"{_SIDE_CHAIN}/input_projection_1",
    "structure_module.angle_resnet.linear_out": f"{_SIDE_CHAIN}/unnormalized_angles",
    "auxiliary_heads.plddt.linear_1": "predicted_lddt_head/act_0",
    "auxiliary_heads.plddt.linear_2": "predicted_lddt_head/act_1",
    "auxiliary_heads.plddt.linear_3": "predicted_lddt_head/logits",
    "auxiliary_heads.distogram.linear": "distogram_head/half_logits",
    "auxiliary_heads.masked_msa.linear": "masked_msa_head/logits",
    "auxiliary_heads.experimentally_resolved.linear": "experimentally_resolved_head/logits",
    "auxiliary_heads.tm.linear": "predicted_aligned_error_head/logits",
}
"""Layers outside of the stacks with a weight and a bias."""

ANGLE_BLOCK = f"{_SIDE_CHAIN}/resblock"
"""Start of the names of the layers of the angle network's blocks."""

NORMS = {
    "recycling_embedder.layer_norm_m": "evoformer/prev_msa_first_row_norm",
    "recycling_embedder.layer_norm_z": "evoformer/prev_pair_norm",
    "template_pair_stack.layer_norm": f"{_TEMPLATE}/output_layer_norm",
    "structure_module.layer_norm_s": "structure_module/single_layer_norm",
    "structure_module.layer_norm_z": "structure_module/pair_layer_norm",
    "structure_module.layer_norm_ipa": f"{_FOLD}/attention_layer_norm",
    "structure_module.transition.layer_norm": f"{_FOLD}/transition_layer_norm",
    "auxiliary_heads.plddt.layer_norm": "predicted_lddt_head/input_layer_norm",
}
"""Normalizations outside of the stacks."""

TEMPLATE_ATTENTION = "evoformer/template_embedding/attention"
HEAD_WEIGHTS = f"{_POINT_ATTENTION}//trainable_point_weights"
ALIGNED_ERROR_HEAD = "predicted_aligned_error_head/"
"""The module that only models with a TM-score head have."""
