"""lDDT of all heavy atoms (Mariani et al. 2013)."""

from __future__ import annotations

import numpy as np
import torch

from openfold_opt.losses.lddt import THRESHOLDS_ANGSTROM
from openfold_opt.losses.reductions import pairwise_distance
from openfold_opt.protein.residue_constants import (
    atom_order,
    atom_type_num,
    residue_atom_renaming_swaps,
    restype_3to1,
    restype_order,
    sequence_to_aatype,
)

INCLUSION_RADIUS_ANGSTROM = 15.0
_BLOCK_RESIDUES = 16


def _renaming_table() -> tuple[np.ndarray, np.ndarray]:
    """Return whether atoms have ambiguous names, and their slots after renaming: [21, 37]."""
    ambiguous = np.zeros((21, atom_type_num), bool)
    renamed = np.tile(np.arange(atom_type_num), (21, 1))
    for residue, swaps in residue_atom_renaming_swaps.items():
        for names in swaps.items():
            restype = restype_order[restype_3to1[residue]]
            slots = [atom_order[name] for name in names]
            ambiguous[restype, slots] = True
            renamed[restype, slots] = slots[::-1]
    return ambiguous, renamed


_IS_AMBIGUOUS, _RENAMED = _renaming_table()


def all_atom_lddt(
    predicted: np.ndarray, true: np.ndarray, mask: np.ndarray, sequence: str
) -> tuple[float, np.ndarray]:
    """Compute the fraction of preserved distances between atoms of different residues.

    Only pairs with a true distance below 15 angstrom count. Each of the thresholds 0.5, 1, 2 and 4
    angstrom has the same weight. The names of the symmetric atoms of ASP, GLU, PHE and TYR are
    exchanged in the prediction if this preserves more distances to the other atoms. The
    stereochemistry of the prediction is not checked, as Mariani et al. do before the comparison.

    Args:
        predicted: [N_res, 37, 3] angstrom. NaN for a missing atom: its distances are not preserved.
        true: [N_res, 37, 3] angstrom.
        mask: bool [N_res, 37], the true atoms that count.
        sequence: one-letter codes of the true residues.

    Returns:
        The score of the chain, 0 to 1, and that of the atoms of each residue, [N_res]. NaN where
        there is no pair.
    """
    aatype = sequence_to_aatype(sequence)
    ambiguous = _IS_AMBIGUOUS[aatype]
    renamed = np.take_along_axis(predicted, _RENAMED[aatype][..., None], axis=1)
    # Only the distances between atoms with and without ambiguous names decide on the names.
    kept, exchanged = (
        _preserved_pairs(
            np.where(ambiguous[..., None], positions, predicted),
            true,
            rows=mask & ambiguous,
            columns=mask & ~ambiguous,
        )[0]
        for positions in (predicted, renamed)
    )
    best = np.where((exchanged > kept)[:, None, None], renamed, predicted)
    preserved, count = _preserved_pairs(best, true, rows=mask, columns=mask)
    with np.errstate(invalid="ignore"):
        return float(preserved.sum() / count.sum()), preserved / count


def _preserved_pairs(
    predicted: np.ndarray, true: np.ndarray, *, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count the pairs of an atom of rows and one of columns, and those that are preserved.

    Args:
        predicted, true: [N_res, 37, 3] angstrom.
        rows, columns: bool [N_res, 37].

    Returns:
        By the residue of the first atom, float64 [N_res]: the number of preserved pairs, averaged
        over the thresholds, and the number of pairs.
    """
    num_residues = len(true)
    preserved, count = np.zeros(num_residues), np.zeros(num_residues)
    column_residue = np.nonzero(columns)[0]
    column_true = torch.tensor(true[columns])
    column_predicted = torch.tensor(predicted[columns])
    for start in range(0, num_residues, _BLOCK_RESIDUES):
        block = slice(start, start + _BLOCK_RESIDUES)
        if not rows[block].any():
            continue
        row_residue = start + np.nonzero(rows[block])[0]
        row_true = torch.tensor(true[block][rows[block]])
        # Atoms outside this box are too far from all atoms of the block.
        low = row_true.amin(0) - INCLUSION_RADIUS_ANGSTROM
        high = row_true.amax(0) + INCLUSION_RADIUS_ANGSTROM
        is_near = ((column_true >= low) & (column_true <= high)).all(1)
        distance = pairwise_distance(row_true, column_true[is_near], eps=0.0)
        error = pairwise_distance(
            torch.tensor(predicted[block][rows[block]]), column_predicted[is_near], eps=0.0
        )
        error = error.sub_(distance).abs_()
        is_counted = distance < INCLUSION_RADIUS_ANGSTROM
        is_counted &= torch.from_numpy(
            row_residue[:, None] != column_residue[None, is_near.numpy()]
        )
        num_preserved = sum(
            ((error < threshold) & is_counted).sum(1) for threshold in THRESHOLDS_ANGSTROM
        ) / len(THRESHOLDS_ANGSTROM)
        np.add.at(preserved, row_residue, num_preserved.double().numpy())
        np.add.at(count, row_residue, is_counted.sum(1).double().numpy())
    return preserved, count
