"""Scores of a chain, compared with the evaluation and with biotite."""

from dataclasses import replace

import biotite.structure as biotite_structure
import numpy as np
import pytest
import torch

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.comparison.chain_scores import score_chain
from openfold_opt.predict.comparison.sequence_matching import MatchError
from openfold_opt.predict.comparison.structure_reader import read_structures
from openfold_opt.protein.residue_constants import atom_order, residue_atom_renaming_swaps
from openfold_opt.train.evaluation.evaluator import lddt_ca
from tests.support.structures import EXAMPLES, only_residues, perturbed, write_pdb

CA = atom_order["CA"]


@pytest.fixture(scope="module")
def true() -> ChainStructure:
    """Return a chain of 141 residues, all with CA."""
    return read_structures(EXAMPLES / "2hhb.cif.gz")[0]


@pytest.fixture(scope="module")
def predicted(true) -> ChainStructure:
    return perturbed(true, np.random.default_rng(0))


def evaluation_score(predicted, true) -> float:
    arrays = (predicted.positions, true.positions, true.atom_mask)
    return float(lddt_ca(*(torch.from_numpy(array)[None] for array in arrays))[0])


def test_lddt_ca_is_that_of_the_evaluation(true, predicted):
    partly = replace(true, atom_mask=true.atom_mask.copy())
    partly.atom_mask[30:40] = False
    for truth in (true, partly):
        scores = score_chain(predicted, [truth])
        assert scores.lddt_ca == pytest.approx(evaluation_score(predicted, truth), abs=1e-6)


def test_lddt_ca_of_written_files_is_that_of_the_evaluation(true, predicted, tmp_path):
    keep = np.ones(true.num_residues, bool)
    keep[50:60] = False
    part = only_residues(true, keep)
    (read_true,) = read_structures(write_pdb(tmp_path / "t.pdb", part, first_number=501))
    (read_predicted,) = read_structures(write_pdb(tmp_path / "p.pdb", predicted))
    scores = score_chain(read_predicted, [read_true])
    masked = replace(true, atom_mask=true.atom_mask & keep[:, None])
    assert scores.lddt_ca == pytest.approx(evaluation_score(predicted, masked), abs=1e-3)
    assert (scores.num_matched, scores.num_true) == (131, 131)
    per_residue = scores.lddt_ca_per_residue
    np.testing.assert_array_equal(np.isnan(per_residue), ~keep)
    assert 0.0 < np.nanmin(per_residue) < np.nanmax(per_residue) <= 1.0


def atoms_of(chain, mask):
    """Return the atoms of a mask as biotite's array; NaN for those that the chain lacks."""
    residues, slots = np.nonzero(mask)
    array = biotite_structure.AtomArray(len(residues))
    has_atom = chain.atom_mask[residues, slots]
    array.coord = np.where(has_atom[:, None], chain.positions[residues, slots], np.nan)
    array.res_id, array.chain_id[:], array.element[:] = residues + 1, "A", "C"
    return array


def test_lddt_of_all_atoms_and_rmsd_are_those_of_biotite(true, predicted):
    # biotite does not exchange names, so that only residues without ambiguous names have atoms.
    is_ambiguous = np.isin(list(true.sequence), ["D", "E", "F", "Y"])
    mask = true.atom_mask & ~is_ambiguous[:, None]
    mask[:, CA] = True
    mask[:, atom_order["OXT"]] = False
    missing = np.random.default_rng(1).random(mask.shape) < 0.05
    part = replace(predicted, atom_mask=predicted.atom_mask & ~missing)
    part.atom_mask[:, CA] = True
    truth = replace(true, atom_mask=mask)
    scores = score_chain(part, [truth])
    reference, subject = atoms_of(truth, mask), atoms_of(part, mask)
    expected = biotite_structure.lddt(reference, subject)
    assert scores.lddt_all_atom == pytest.approx(expected, abs=1e-5)
    by_residue = biotite_structure.lddt(reference, subject, aggregation="residue")
    np.testing.assert_allclose(scores.lddt_all_atom_per_residue, by_residue, atol=1e-3)
    fitted, _ = biotite_structure.superimpose(true.ca_positions, predicted.ca_positions)
    expected = biotite_structure.rmsd(true.ca_positions, fitted)
    assert scores.rmsd_ca == pytest.approx(expected, abs=1e-4)


def test_exchanged_names_of_symmetric_atoms_do_not_count(true):
    positions = true.positions.copy()
    for residue, letter in (("ASP", "D"), ("GLU", "E"), ("PHE", "F"), ("TYR", "Y")):
        rows = np.flatnonzero(np.array(list(true.sequence)) == letter)[::2]
        for names in residue_atom_renaming_swaps[residue].items():
            first, second = (atom_order[name] for name in names)
            positions[np.ix_(rows, [first, second])] = positions[np.ix_(rows, [second, first])]
    assert score_chain(replace(true, positions=positions), [true]).lddt_all_atom == 1.0
    # Names of atoms that differ do count.
    nitrogen, oxygen = atom_order["N"], atom_order["O"]
    positions[:, [nitrogen, oxygen]] = positions[:, [oxygen, nitrogen]]
    assert score_chain(replace(true, positions=positions), [true]).lddt_all_atom < 0.9


def test_side_chains_of_other_residue_types_do_not_count(true):
    """A mutated residue has the same backbone, and its side chain is at another place."""
    place = true.sequence.index("K", 20)
    positions = true.positions.copy()
    side_chain = [slot for name, slot in atom_order.items() if name not in ("N", "CA", "C", "O")]
    positions[place, side_chain] += 50.0
    moved = replace(true, positions=positions)
    assert score_chain(moved, [true]).lddt_all_atom < 1.0
    sequence = true.sequence[:place] + "R" + true.sequence[place + 1 :]
    scores = score_chain(replace(moved, sequence=sequence), [true])
    assert scores.lddt_all_atom == 1.0 and scores.match.identity == pytest.approx(140 / 141)


def test_residues_that_the_prediction_lacks_are_wrong(true):
    part = only_residues(true, np.arange(true.num_residues) < 70)
    scores = score_chain(part, [true])
    assert (scores.num_matched, scores.num_true) == (70, 141)
    assert scores.gdt_ts == pytest.approx(70 / 141)
    assert scores.tm_score == pytest.approx(70 / 141)
    assert scores.lddt_ca < 0.6 and scores.lddt_all_atom < 0.6
    assert scores.rmsd_ca == pytest.approx(0.0, abs=1e-4)


def test_residues_without_truth_are_ignored(true):
    part = only_residues(true, np.arange(true.num_residues) < 100)
    scores = score_chain(true, [part])
    assert (scores.num_matched, scores.num_true) == (100, 100)
    assert scores.tm_score == pytest.approx(1.0) and scores.lddt_all_atom == 1.0
    assert np.isnan(scores.ca_distance_per_residue[100:]).all()
    np.testing.assert_allclose(scores.ca_distance_per_residue[:100], 0.0, atol=1e-4)


def test_the_superimposed_truth_has_the_residues_of_the_prediction(true, predicted):
    keep = np.arange(true.num_residues) >= 20
    superposed = score_chain(predicted, [only_residues(true, keep)]).superposed_true
    assert superposed.num_residues == predicted.num_residues
    assert superposed.sequence == "X" * 20 + true.sequence[20:]
    np.testing.assert_array_equal(superposed.has_ca, keep)
    distance = np.linalg.norm(superposed.ca_positions - predicted.ca_positions, axis=1)
    assert np.median(distance[keep]) < 5.0


@pytest.mark.parametrize(
    ("kind", "message"), [("predicted", "predicted chain A has no CA"), ("true", "true chain A")]
)
def test_a_chain_without_ca_is_refused(true, kind, message):
    empty = replace(true, atom_mask=np.zeros_like(true.atom_mask))
    chains = (empty, true) if kind == "predicted" else (true, empty)
    with pytest.raises(MatchError, match=message):
        score_chain(chains[0], [chains[1]])


def test_two_common_residues_are_refused(true):
    few = replace(true, atom_mask=true.atom_mask.copy())
    few.atom_mask[2:] = False
    with pytest.raises(MatchError, match="have 2 residues with a CA atom in common"):
        score_chain(true, [few])
