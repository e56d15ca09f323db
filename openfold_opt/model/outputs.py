"""ModelOutputs: the outputs of the last pass through the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelOutputs:
    """Outputs of the last pass.

    Positions are in angstrom. Fields that start with sm_ come from the structure module and have
    one slice per block.
    """

    msa: Tensor
    """[batch, N_clust, N_res, c_m], without the rows of template angles"""
    pair: Tensor
    """[batch, N_res, N_res, c_z]"""
    single: Tensor
    """[batch, N_res, c_s]"""
    sm_frames: Tensor
    """[batch, num_blocks, N_res, 7]: unit quaternion, translation"""
    sm_sidechain_frames: Tensor
    """[batch, num_blocks, N_res, 8, 4, 4]"""
    sm_unnormalized_angles: Tensor
    """[batch, num_blocks, N_res, 7, 2]"""
    sm_angles: Tensor
    """[batch, num_blocks, N_res, 7, 2]: sine and cosine of omega, phi, psi, chi1..chi4"""
    sm_positions: Tensor
    """[batch, num_blocks, N_res, 14, 3]"""
    sm_states: Tensor
    """[batch, num_blocks, N_res, c_s]"""
    sm_single: Tensor
    """[batch, N_res, c_s]: the last of sm_states"""
    final_atom_positions: Tensor
    """[batch, N_res, 37, 3]"""
    final_atom_mask: Tensor
    """[batch, N_res, 37]"""
    final_affine_tensor: Tensor
    """[batch, N_res, 7]: the last of sm_frames"""
    lddt_logits: Tensor
    """[batch, N_res, num_bins]"""
    plddt: Tensor
    """[batch, N_res], 0..100"""
    distogram_logits: Tensor
    """[batch, N_res, N_res, num_bins]"""
    masked_msa_logits: Tensor
    """[batch, N_clust, N_res, 23]"""
    experimentally_resolved_logits: Tensor
    """[batch, N_res, 37]"""
    tm_logits: Tensor | None = None
    """[batch, N_res, N_res, num_bins], if the model has the TM-score head"""
    predicted_tm_score: Tensor | None = None
    """[batch], without padding, if the model has the TM-score head"""
    aligned_confidence_probs: Tensor | None = None
    """[batch, N_res, N_res, num_bins], if the model has the TM-score head"""
    predicted_aligned_error: Tensor | None = None
    """[batch, N_res, N_res], if the model has the TM-score head"""
    max_predicted_aligned_error: Tensor | None = None
    """[]: center of the last bin, if the model has the TM-score head"""
