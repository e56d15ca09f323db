"""Structure features of the target: atoms, frames and torsion angles."""

import numpy as np
import torch
from torch import Tensor

from openfold_opt.geometry.atoms import make_atom14_masks, make_atom14_positions, pseudo_beta
from openfold_opt.geometry.frames import atom37_to_frames
from openfold_opt.geometry.torsions import atom37_to_torsion_angles

TARGET_FRAME_FEATURES = (
    "rigidgroups_gt_frames",
    "rigidgroups_alt_gt_frames",
    "rigidgroups_gt_exists",
)


def make_structure_features(
    aatype: np.ndarray, all_atom_positions: np.ndarray, all_atom_mask: np.ndarray, *, crop: slice
) -> dict[str, np.ndarray]:
    """Return the ground-truth features of the residues in the crop.

    Args:
        aatype: int64 [N_res], classes 0..20, the whole chain.
        all_atom_positions: float32 [N_res, 37, 3], angstrom.
        all_atom_mask: float32 [N_res, 37].
        crop: residues to return.

    Returns:
        the features of openfold_opt.protein.features that describe atoms, frames and torsions, and
        seq_mask, for the crop.
    """
    residues = torch.from_numpy(np.ascontiguousarray(aatype[crop]))
    positions = torch.from_numpy(np.array(all_atom_positions[crop], dtype=np.float32))
    mask = torch.from_numpy(np.array(all_atom_mask[crop], dtype=np.float32))
    features = structure_features(residues, positions, mask) | {
        "seq_mask": torch.ones(len(residues))
    }
    return {name: tensor.numpy() for name, tensor in features.items()}


def structure_features(residues: Tensor, positions: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the features of make_structure_features except seq_mask, on the device of the input.

    Args:
        residues: int64 [..., N_res], classes 0..20.
        positions: float32 [..., N_res, 37, 3], angstrom.
        mask: float32 [..., N_res, 37].
    """
    # Only the chi angles are target features. They do not depend on neighboring residues, so the
    # crop is sufficient.
    sin_cos, _, torsion_mask = atom37_to_torsion_angles(residues, positions, mask)
    frames = atom37_to_frames(residues, positions, mask)
    beta, beta_mask = pseudo_beta(residues, positions, mask)
    return {
        "aatype": residues,
        "all_atom_positions": positions,
        "all_atom_mask": mask,
        **make_atom14_masks(residues),
        **make_atom14_positions(residues, positions, mask),
        **{name: frames[name] for name in TARGET_FRAME_FEATURES},
        "backbone_rigid_tensor": frames["rigidgroups_gt_frames"][..., 0, :, :],
        "backbone_rigid_mask": frames["rigidgroups_gt_exists"][..., 0],
        "pseudo_beta": beta,
        "pseudo_beta_mask": beta_mask,
        "chi_angles_sin_cos": sin_cos[..., 3:, :],
        "chi_mask": torsion_mask[..., 3:],
    }
