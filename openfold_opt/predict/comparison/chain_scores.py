"""Compare a predicted chain with a true one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openfold_opt.geometry.superposition import superimpose
from openfold_opt.losses.lddt import lddt
from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.comparison.all_atom_lddt import all_atom_lddt
from openfold_opt.predict.comparison.sequence_matching import ChainMatch, MatchError, match_chain
from openfold_opt.predict.comparison.superposition_search import (
    MIN_PAIRS,
    SearchResult,
    search_superpositions,
)
from openfold_opt.protein.residue_constants import (
    atom_order,
    restype_atom37_mask,
    sequence_to_aatype,
    unknown_restype_index,
)

_CA = atom_order["CA"]
_BACKBONE_SLOTS = [atom_order[name] for name in ("N", "CA", "C", "O")]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainScores:
    """Scores of a predicted chain.

    The scores count the residues of the true chain with a CA atom (num_true), and
    lddt_all_atom counts its heavy atoms. Those that the prediction does not have are wrong, except
    in rmsd_ca. Residues of the prediction that the true chain does not have, or has without atoms,
    are ignored.
    """

    match: ChainMatch
    lddt_ca: float
    """0..1, as in the evaluation of a training run."""
    lddt_all_atom: float
    """0..1. Side chains count where both chains have the same residue type. OXT and hydrogen do not
    count."""
    rmsd_ca: float
    """RMSD of the matched CA atoms after their optimal superposition, angstrom."""
    gdt_ts: float
    """0..1, normalized by num_true."""
    tm_score: float
    """0..1, normalized by num_true."""
    num_matched: int
    """Residues with a CA atom in both chains."""
    num_true: int
    """Residues of the true chain with a CA atom."""
    lddt_ca_per_residue: np.ndarray
    """[N_res] of the predicted chain; NaN for residues that are not compared."""
    lddt_all_atom_per_residue: np.ndarray
    """[N_res] of the predicted chain; NaN for residues that are not compared."""
    ca_distance_per_residue: np.ndarray
    """[N_res] of the predicted chain, angstrom, after the superposition with the best TM-score; NaN
    for residues that are not compared."""
    superposed_true: ChainStructure
    """The true chain, superimposed on the predicted chain with the best TM-score. It has the
    residues of the predicted chain, without atoms where the true chain has none."""


def score_chain(predicted: ChainStructure, candidates: Sequence[ChainStructure]) -> ChainScores:
    """Find the true chain of a predicted chain by sequence, and compare both.

    Args:
        predicted: the predicted chain.
        candidates: true chains.

    Raises:
        MatchError: no true chain has this sequence, or there are fewer than three common CA atoms.
    """
    match = match_chain(predicted, candidates)
    true = match.true
    for kind, chain in (("predicted", predicted), ("true", true)):
        if not chain.has_ca.any():
            raise MatchError(f"{kind} chain {chain.name} has no CA atoms")
    index, true_index = match.predicted_index, match.true_index
    is_compared = predicted.has_ca[index] & true.has_ca[true_index]
    pairs, true_pairs = index[is_compared], true_index[is_compared]
    if len(pairs) < MIN_PAIRS:
        raise MatchError(
            f"predicted chain {predicted.name} and true chain {true.name} have {len(pairs)} "
            f"residues with a CA atom in common; expected at least {MIN_PAIRS}"
        )
    num_true = int(true.has_ca.sum())
    moved, fixed = predicted.ca_positions[pairs], true.ca_positions[true_pairs]
    result = search_superpositions(moved, fixed, num_true=num_true)
    superposed = _superposed(predicted, match, result)
    distance = np.linalg.norm(superposed.ca_positions - predicted.ca_positions, axis=1)
    aligned = _predicted_positions(predicted, match)
    score_ca, per_residue_ca = _lddt_ca(aligned[:, _CA], true)
    score_all, per_residue_all = all_atom_lddt(
        aligned, true.positions, _counted_atoms(predicted, match), true.sequence
    )
    return ChainScores(
        match=match,
        lddt_ca=score_ca,
        lddt_all_atom=score_all,
        rmsd_ca=_rmsd(moved, fixed),
        gdt_ts=result.gdt_ts,
        tm_score=result.tm_score,
        num_matched=len(pairs),
        num_true=num_true,
        lddt_ca_per_residue=_by_predicted_residue(
            predicted, pairs, values=per_residue_ca[true_pairs]
        ),
        lddt_all_atom_per_residue=_by_predicted_residue(
            predicted, pairs, values=per_residue_all[true_pairs]
        ),
        ca_distance_per_residue=_by_predicted_residue(predicted, pairs, values=distance[pairs]),
        superposed_true=superposed,
    )


def _superposed(
    predicted: ChainStructure, match: ChainMatch, result: SearchResult
) -> ChainStructure:
    """Return the residues of the true chain, superimposed on those of the predicted chain."""
    true, index = match.true, match.true_index
    letters = np.full(predicted.num_residues, "X")
    letters[match.predicted_index] = np.array(list(true.sequence))[index]
    mask = np.zeros(predicted.atom_mask.shape, bool)
    mask[match.predicted_index] = true.atom_mask[index]
    positions = np.zeros(predicted.positions.shape)
    # The search superimposes p of the predicted chain as p @ rotation + translation.
    positions[match.predicted_index] = (
        true.positions[index] - result.translation
    ) @ result.rotation.T
    return ChainStructure(
        name=true.name,
        sequence="".join(letters),
        positions=np.where(mask[..., None], positions, 0.0).astype(np.float32),
        atom_mask=mask,
    )


def _predicted_positions(predicted: ChainStructure, match: ChainMatch) -> np.ndarray:
    """Return the positions in the order of the true chain; NaN where there is no atom."""
    positions = np.full(match.true.positions.shape, np.nan, np.float32)
    positions[match.true_index] = np.where(
        predicted.atom_mask[match.predicted_index, :, None],
        predicted.positions[match.predicted_index],
        np.nan,
    )
    return positions


def _counted_atoms(predicted: ChainStructure, match: ChainMatch) -> np.ndarray:
    """Return the true atoms that count for lDDT all-atom: bool [N_res, 37].

    They are the atoms of the residue type, and only the backbone where the predicted chain has
    another residue type, or the type is unknown.
    """
    true_types = sequence_to_aatype(match.true.sequence)
    mask = restype_atom37_mask[true_types] > 0
    predicted_types = np.array(true_types)
    predicted_types[match.true_index] = sequence_to_aatype(predicted.sequence)[
        match.predicted_index
    ]
    is_other = (predicted_types != true_types) | (true_types == unknown_restype_index)
    is_backbone = np.isin(np.arange(mask.shape[1]), _BACKBONE_SLOTS)
    mask[is_other] = is_backbone
    return mask & match.true.atom_mask


def _lddt_ca(predicted: np.ndarray, true: ChainStructure) -> tuple[float, np.ndarray]:
    """Return lDDT-Ca of the chain, and of each residue. predicted: NaN where there is no atom.

    A comparison with NaN is false, so that distances of missing atoms are not preserved.
    """
    arrays = (predicted, true.ca_positions, true.has_ca.astype(np.float32))
    tensors = [torch.from_numpy(array) for array in arrays]
    return float(lddt(*tensors, per_residue=False)), lddt(*tensors).numpy()


def _rmsd(moved: np.ndarray, fixed: np.ndarray) -> float:
    points = torch.from_numpy(moved), torch.from_numpy(fixed)
    return float(superimpose(*points, torch.ones(len(moved)))[1])


def _by_predicted_residue(
    predicted: ChainStructure, index: np.ndarray, *, values: np.ndarray
) -> np.ndarray:
    result = np.full(predicted.num_residues, np.nan)
    result[index] = values
    return result
