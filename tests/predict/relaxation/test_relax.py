"""Relaxation of damaged real structures."""

import dataclasses
import importlib.util
import random
import sys

import numpy as np
import pytest

from openfold_opt.predict.relaxation import RelaxationError, RelaxOptions, find_violations, relax
from openfold_opt.predict.relaxation.minimization import choose_platform
from openfold_opt.predict.relaxation.molecule import build_molecule
from openfold_opt.protein.residue_constants import atom_order, restype_1to3
from openfold_opt.protein.stereo_chemistry import bonds_and_angles
from tests.support.real_chains import (
    damaged_chain,
    real_chain,
    with_noise,
    with_unknown_residues,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openmm") is None,
    reason="openmm is not installed; pip install openmm",
)
N, CA, C = (atom_order[name] for name in ("N", "CA", "C"))


@pytest.fixture(scope="module")
def trp_cage():
    return real_chain("1l2y")


@pytest.fixture(scope="module")
def damaged():
    return damaged_chain()


@pytest.fixture(scope="module")
def relaxed(damaged):
    return relax(damaged)


def has_violations(violations):
    return bool(violations.residues.any())


def test_clashes_and_wrong_bonds_are_removed(damaged, relaxed):
    report = relaxed.report
    assert report.before.clashes.count == 8
    assert report.before.bonds.count >= 3
    assert not has_violations(report.after)
    assert not has_violations(find_violations(relaxed.structure))
    assert report.max_ca_shift < 0.5
    shifts = np.linalg.norm(relaxed.structure.ca_positions - damaged.ca_positions, axis=-1)
    assert report.max_ca_shift == pytest.approx(shifts.max())
    assert report.platform == "CPU"


def test_bond_lengths_are_those_of_proteins(relaxed):
    structure, errors = relaxed.structure, []
    for index, letter in enumerate(structure.sequence):
        for bond in bonds_and_angles(restype_1to3[letter])[0]:
            ends = structure.positions[
                index, [atom_order[name] for name in (bond.atom_1, bond.atom_2)]
            ]
            errors.append(np.linalg.norm(ends[0] - ends[1]) - bond.length)
    peptide_bonds = structure.positions[1:, N] - structure.positions[:-1, C]
    errors.extend(np.linalg.norm(peptide_bonds, axis=-1) - 1.33)
    assert np.abs(errors).max() < 0.06


def test_everything_but_the_positions_is_kept(damaged, relaxed):
    structure = relaxed.structure
    assert (structure.name, structure.sequence) == (damaged.name, damaged.sequence)
    assert np.array_equal(structure.atom_mask, damaged.atom_mask)
    assert np.array_equal(structure.plddt, damaged.plddt)
    assert structure.positions.dtype == np.float32
    assert not structure.positions[~structure.atom_mask].any()


def test_two_runs_are_equal(damaged, relaxed):
    state = random.getstate()
    again = relax(damaged)
    assert np.array_equal(again.structure.positions, relaxed.structure.positions)
    assert random.getstate() == state


def test_residues_that_still_violate_lose_their_restraints(trp_cage):
    # The restraints hold residue 10 on residue 5.
    positions = trp_cage.positions.copy()
    shift = positions[5, CA] - positions[10, CA] + np.float32(0.1)
    positions[10] += shift * trp_cage.atom_mask[10, :, None]
    stacked = dataclasses.replace(trp_cage, positions=positions)
    held = relax(stacked, options=RelaxOptions(max_rounds=1))
    free = relax(stacked)
    assert held.report.num_rounds == 1 and has_violations(held.report.after)
    assert free.report.num_rounds > 1 and not has_violations(free.report.after)


def test_gaps_have_no_bond_and_no_termini(trp_cage):
    # Two unknown residues at the start, a gap of one, a residue between gaps, and an unknown end.
    gaps = with_unknown_residues(trp_cage, 0, 1, 4, 6, 19)
    topology = build_molecule(gaps, choose_platform(num_threads=1, gpu_index=None)).topology
    names = {residue.id: {atom.name for atom in residue.atoms()} for residue in topology.residues()}
    assert set(names) == {str(i + 1) for i in range(20) if gaps.sequence[i] != "X"}
    assert all("OXT" not in atoms and "H3" not in atoms for atoms in names.values())
    peptide_bonds = [
        tuple(sorted(int(atom.residue.id) for atom in bond))
        for bond in topology.bonds()
        if bond[0].residue is not bond[1].residue
    ]
    assert sorted(peptide_bonds) == [(3, 4), *((i, i + 1) for i in range(8, 19))]
    moved = relax(with_noise(gaps, 0.2))
    assert not has_violations(moved.report.after)
    assert moved.report.max_ca_shift < 0.5
    assert not moved.structure.atom_mask[[0, 1, 4, 6, 19]].any()


def test_a_whole_chain_has_termini(trp_cage):
    topology = build_molecule(trp_cage, choose_platform(num_threads=1, gpu_index=None)).topology
    first, *inner, last = topology.residues()
    assert {"H", "H2", "H3"} <= {atom.name for atom in first.atoms()}
    assert "OXT" in {atom.name for atom in last.atoms()}
    names = {atom.name for residue in inner for atom in residue.atoms()}
    assert "OXT" not in names


def test_disulfide_bonds_stay():
    """Two cysteines in contact form a bond, also if the chain has a gap."""
    trp_cage = real_chain("1l2y")
    keep = [atom_order[name] for name in ("N", "CA", "C", "O", "CB")]
    positions, mask = trp_cage.positions.copy(), np.zeros_like(trp_cage.atom_mask)
    mask[np.ix_([5, 18], keep)] = True
    # CB of residue 18 comes within a disulfide bond of CB of residue 5.
    to_other = positions[18, CA] - positions[5, CA]
    positions[18] -= to_other * (1.0 - 5.5 / np.linalg.norm(to_other))
    axis = positions[18, CA] - positions[5, CA]
    axis /= np.linalg.norm(axis)
    sulfur = atom_order["SG"]
    mask[[5, 18], sulfur] = True
    positions[5, sulfur] = positions[5, atom_order["CB"]] + 1.2 * axis
    positions[18, sulfur] = positions[5, sulfur] + 2.05 * axis
    cysteines = dataclasses.replace(
        trp_cage,
        sequence="XXXXXCXXXXXXXXXXXXCX",
        positions=positions * mask[..., None],
        atom_mask=mask,
    )
    moved = relax(cysteines).structure.positions
    assert np.linalg.norm(moved[5, sulfur] - moved[18, sulfur]) == pytest.approx(2.05, abs=0.1)


def test_refusals(trp_cage, monkeypatch):
    positions = trp_cage.positions.copy()
    positions[3, CA, 1] = np.nan
    with pytest.raises(ValueError, match="1l2y has positions that are not finite"):
        relax(dataclasses.replace(trp_cage, positions=positions))
    mask = trp_cage.atom_mask.copy()
    mask[1, atom_order["CG"]] = False
    with pytest.raises(ValueError, match=r"residue 2 \(L\) has the atoms N CA C CB O CD1 CD2; exp"):
        relax(dataclasses.replace(trp_cage, atom_mask=mask))
    with pytest.raises(ValueError, match="1l2y has no atoms"):
        relax(with_unknown_residues(trp_cage, *range(20)))
    with pytest.raises(ValueError, match="expected stiffness >= 0"):
        RelaxOptions(max_rounds=0)
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(ValueError, match="pip install openmm"):
        relax(trp_cage)


@pytest.mark.parametrize("is_whole", [False, True])
def test_atoms_at_the_same_position(trp_cage, is_whole):
    positions = trp_cage.positions.copy()
    if is_whole:
        positions[:] = 0.0
    else:
        positions[10, CA] = positions[5, CA]
    with pytest.raises(RelaxationError, match="atoms coincide"):
        relax(dataclasses.replace(trp_cage, positions=positions))
