"""Find the true chain of a predicted chain, and its residues, by sequence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import gemmi
import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure

MIN_IDENTITY = 0.7
"""Chains with less identical sequences are not the same protein."""
MAX_CA_DISTANCE_ANGSTROM = 5.0
"""CA atoms of bonded residues are closer."""
_GAP_COST, _GAP_COST_AT_BREAK = -5, 0
"""Costs of opening a gap. A match adds 1; a mismatch and each residue of a gap subtract 1. With
lower costs a short chain could be spread over an unrelated long one."""
_MAX_SHOWN = 20


class MatchError(ValueError):
    """No true chain corresponds to a predicted chain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainMatch:
    """A true chain and the residues that it has in common with a predicted chain."""

    true: ChainStructure
    predicted_index: np.ndarray
    """int64 [num_pairs], ascending: indices of the residues of the predicted chain."""
    true_index: np.ndarray
    """int64 [num_pairs], ascending: indices of the same residues of the true chain."""
    identity: float
    """Number of pairs with the same residue type, divided by the length of the shorter
    sequence."""


def match_chain(predicted: ChainStructure, candidates: Sequence[ChainStructure]) -> ChainMatch:
    """Return the candidate with the most similar sequence, and its residues.

    A candidate with the same sequence has priority, then the one with the highest identity, then
    the one with the most matched residues that have a CA atom, then the first one.

    Raises:
        MatchError: no identity is at least MIN_IDENTITY, or there are no candidates.
    """
    if not candidates:
        raise MatchError(f"no true chain is left for predicted chain {predicted.name}")
    matches = [match_residues(predicted, true) for true in candidates]
    best = max(
        matches,
        key=lambda match: (
            match.true.sequence == predicted.sequence,
            match.identity,
            np.count_nonzero(match.true.has_ca[match.true_index]),
        ),
    )
    if best.identity < MIN_IDENTITY:
        identities = ", ".join(
            f"{match.true.name} ({match.true.num_residues} residues) {match.identity:.0%}"
            for match in matches[:_MAX_SHOWN]
        )
        raise MatchError(
            f"no true chain has the sequence of predicted chain {predicted.name} "
            f"({predicted.num_residues} residues); identity: {identities}; expected at least "
            f"{MIN_IDENTITY:.0%}. Check that both files are of the same protein"
        )
    return best


def match_residues(predicted: ChainStructure, true: ChainStructure) -> ChainMatch:
    """Match the residues of two chains by a global alignment of their sequences.

    Equal sequences are matched residue by residue. Else residues of different types may be
    matched. In a true chain whose sequence consists only of the residues with atoms, missing
    residues are a gap that could be at several places with the same number of identical residues.
    It is opened where consecutive CA atoms are too far apart to be bonded.
    """
    if predicted.sequence == true.sequence:
        predicted_index = true_index = np.arange(true.num_residues)
    else:
        alignment = gemmi.align_string_sequences(
            list(predicted.sequence), list(true.sequence), _gap_costs(true), _scoring()
        )
        predicted_index, true_index = _pairs(alignment.cigar_str())
    letters, others = (
        np.array(list(chain.sequence))[index]
        for chain, index in ((predicted, predicted_index), (true, true_index))
    )
    shorter = min(predicted.num_residues, true.num_residues)
    return ChainMatch(
        true=true,
        predicted_index=predicted_index,
        true_index=true_index,
        identity=np.count_nonzero(letters == others) / shorter,
    )


def _scoring() -> gemmi.AlignmentScoring:
    """Return the scores of an alignment; gaps of the predicted sequence have the same cost."""
    scoring = gemmi.AlignmentScoring()
    scoring.match, scoring.mismatch, scoring.gapo, scoring.gape = 1, -1, _GAP_COST, -1
    return scoring


def _gap_costs(true: ChainStructure) -> list[int]:
    """Return the costs of opening a gap before, between and after the residues."""
    steps = np.linalg.norm(np.diff(true.ca_positions, axis=0), axis=1)
    is_known = true.has_ca[1:] & true.has_ca[:-1]
    is_break = is_known & (steps > MAX_CA_DISTANCE_ANGSTROM)
    costs = np.where(is_break, _GAP_COST_AT_BREAK, _GAP_COST).tolist()
    return [_GAP_COST_AT_BREAK, *costs, _GAP_COST_AT_BREAK]


def _pairs(cigar: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the matched indices of an alignment: M match, I predicted only, D true only."""
    first, second, pairs = 0, 0, []
    for length, operation in re.findall(r"(\d+)([MID])", cigar):
        if operation == "M":
            steps = np.arange(int(length))
            pairs.append((first + steps, second + steps))
        first += int(length) * (operation != "D")
        second += int(length) * (operation != "I")
    if not pairs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    predicted_index, true_index = (np.concatenate(parts) for parts in zip(*pairs))
    return predicted_index, true_index
