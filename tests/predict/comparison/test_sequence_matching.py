"""Residues and chains are matched by sequence."""

import numpy as np
import pytest

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.comparison.sequence_matching import (
    MatchError,
    match_chain,
    match_residues,
)

HELICAL = "MKLVAEWTRDPQNHICYGSF"


def chain(sequence, *, name="A", resolved=None, start=0) -> ChainStructure:
    """Return a straight chain; residue i has its CA at 3.8 i. resolved: indices with a CA."""
    num_residues = len(sequence)
    positions, mask = (
        np.zeros((num_residues, 37, 3), np.float32),
        np.zeros((num_residues, 37), bool),
    )
    positions[:, 1, 0] = 3.8 * (start + np.arange(num_residues))
    mask[slice(None) if resolved is None else resolved, 1] = True
    return ChainStructure(name=name, sequence=sequence, positions=positions, atom_mask=mask)


@pytest.mark.parametrize(
    ("predicted", "true", "pairs"),
    [
        (HELICAL, HELICAL, [(i, i) for i in range(20)]),
        (HELICAL, "GSHHHHHH" + HELICAL, [(i, i + 8) for i in range(20)]),
        (HELICAL, HELICAL + "HHHHHH", [(i, i) for i in range(20)]),
        (HELICAL, HELICAL[5:], [(i, i - 5) for i in range(5, 20)]),
        (HELICAL, HELICAL[:9] + "G" + HELICAL[10:], [(i, i) for i in range(20)]),
        (
            HELICAL,
            HELICAL[:8] + HELICAL[12:],
            [(i, i) for i in range(8)] + [(i, i - 4) for i in range(12, 20)],
        ),
    ],
    ids=["equal", "tag", "tag at the end", "start missing", "mutation", "gap"],
)
def test_pairs(predicted, true, pairs):
    match = match_residues(chain(predicted), chain(true))
    assert list(zip(match.predicted_index.tolist(), match.true_index.tolist())) == pairs


@pytest.mark.parametrize("start", [4, 6, 8])
def test_the_gap_is_where_the_chain_is_broken(start):
    """In a repeat, the sequence alone does not tell which residues are missing."""
    sequence = "MKLVGSGSGSGSLVKR"
    keep = [i for i in range(16) if not start <= i < start + 4]
    true = chain("".join(sequence[i] for i in keep))
    true.positions[:, 1, 0] = 3.8 * np.array(keep)
    match = match_residues(chain(sequence), true)
    assert match.predicted_index.tolist() == keep and match.identity == 1.0


def test_the_best_chain_is_chosen():
    other, mutated = HELICAL[::-1], "G" + HELICAL[1:]
    candidates = [
        chain(other, name="A"),
        chain(mutated, name="B"),
        chain(HELICAL, name="C", resolved=slice(0, 10)),
        chain(HELICAL, name="D"),
        chain(HELICAL, name="E"),
    ]
    predicted = chain(HELICAL)
    assert match_chain(predicted, candidates).true.name == "D"
    assert match_chain(predicted, candidates[:3]).true.name == "C"
    match = match_chain(predicted, candidates[:2])
    assert match.true.name == "B" and match.identity == 0.95


def test_another_protein_is_refused():
    with pytest.raises(MatchError, match=r"identity: B \(20 residues\) \d+%; expected at least 70"):
        match_chain(chain(HELICAL), [chain(HELICAL[::-1], name="B")])


def test_a_short_chain_is_not_spread_over_a_long_one():
    rng = np.random.default_rng(0)
    long, short = ("".join(rng.choice(list(HELICAL), size)) for size in (400, 12))
    assert match_residues(chain(long), chain(short)).identity < 0.5


def test_no_candidate_is_an_error():
    with pytest.raises(MatchError, match="no true chain is left for predicted chain A"):
        match_chain(chain(HELICAL), [])
