"""Template features (AlphaFold2 supplement, table 1) of the templates of a sample."""

import numpy as np
import torch
from torch import Tensor

from openfold_opt.geometry.atoms import pseudo_beta
from openfold_opt.geometry.torsions import atom37_to_torsion_angles
from openfold_opt.loader.raw_features import Templates


def make_template_features(
    templates: Templates, *, chosen: np.ndarray, crop: slice
) -> dict[str, np.ndarray]:
    """Return the features of the chosen templates for the residues in the crop.

    Args:
        templates: of the whole chain.
        chosen: int64 [n], indices into `templates`; n may be 0.
        crop: residues to return.

    Returns:
        the template_* features of openfold_opt.protein.features, [n, length of the crop, ...].
    """
    # Torsion angles omega and phi depend on the previous residue, which may be outside the crop.
    first = max(crop.start - 1, 0)
    context = templates.take(chosen, slice(first, crop.stop))
    aatype = torch.from_numpy(context.aatype)
    positions, mask = (
        torch.from_numpy(context.all_atom_positions),
        torch.from_numpy(context.all_atom_mask),
    )
    features = template_features(aatype, positions, mask)
    cropped = {name: tensor[:, crop.start - first :].numpy() for name, tensor in features.items()}
    return cropped | {"template_mask": np.ones(len(chosen), np.float32)}


def template_features(aatype: Tensor, positions: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the features of make_template_features except template_mask, on the input's device.

    Args:
        aatype: int64 [..., N_res], classes 0..21.
        positions: float32 [..., N_res, 37, 3], angstrom.
        mask: float32 [..., N_res, 37].
    """
    beta, beta_mask = pseudo_beta(aatype, positions, mask)
    sin_cos, alternative_sin_cos, torsion_mask = atom37_to_torsion_angles(aatype, positions, mask)
    return {
        "template_aatype": aatype,
        "template_all_atom_positions": positions,
        "template_all_atom_mask": mask,
        "template_pseudo_beta": beta,
        "template_pseudo_beta_mask": beta_mask,
        "template_torsion_angles_sin_cos": sin_cos,
        "template_alt_torsion_angles_sin_cos": alternative_sin_cos,
        "template_torsion_angles_mask": torsion_mask,
    }
