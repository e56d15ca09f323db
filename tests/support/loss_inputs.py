"""Inputs of losses: an ideal structure and logits."""

from types import SimpleNamespace

import numpy as np
import torch

from data_prep.synthesize.build import build_atoms
from openfold_opt.geometry.atoms import make_atom14_masks, make_atom14_positions
from openfold_opt.geometry.frames import atom37_to_frames
from openfold_opt.geometry.torsions import atom37_to_torsion_angles
from openfold_opt.protein.residue_constants import sequence_to_aatype

SEQUENCE = "AEDKLFYRQMGWVTE"
RESOLUTIONS = torch.tensor([2.0, 5.0, float("nan")])
"""Resolutions within the range, above the range, and unknown."""


def ideal_helix() -> SimpleNamespace:
    """Return the true structure of SEQUENCE, a helix with a turn, as a batch of one sample."""
    aatype = torch.from_numpy(sequence_to_aatype(SEQUENCE))[None]
    positions, mask = (
        torch.from_numpy(np.asarray(array, np.float32))[None] for array in build_atoms(SEQUENCE)
    )
    sin_cos, _, torsion_mask = atom37_to_torsion_angles(aatype, positions, mask)
    features = (
        make_atom14_masks(aatype)
        | make_atom14_positions(aatype, positions, mask)
        | atom37_to_frames(aatype, positions, mask)
    )
    return SimpleNamespace(
        aatype=aatype,
        residue_index=torch.arange(len(SEQUENCE))[None],
        seq_mask=torch.ones(1, len(SEQUENCE)),
        chi_angles_sin_cos=sin_cos[:, :, 3:],
        chi_mask=torsion_mask[:, :, 3:],
        sin_cos=sin_cos,
        **features,
    )


def confident_logits(index: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return logits whose softmax is one-hot at index."""
    return torch.nn.functional.one_hot(index, num_classes).float() * 100.0
