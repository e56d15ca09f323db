"""Violations of real and damaged structures."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from openfold_opt.geometry.atoms import gather_atoms, make_atom14_masks
from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.losses.violation import within_residue_violations
from openfold_opt.predict.relaxation.violations import find_violations
from openfold_opt.protein.residue_constants import atom_order, atom_types, sequence_to_aatype
from openfold_opt.protein.stereo_chemistry import van_der_waals_radius
from tests.support.real_chains import (
    real_chain,
    with_noise,
    with_rotated_side_chain,
    with_unknown_residues,
)

N, CA, C = (atom_order[name] for name in ("N", "CA", "C"))
OXYGEN = atom_order["O"]


@pytest.fixture(scope="module")
def trp_cage():
    return real_chain("1l2y")


def moved(structure, index, slots, offset):
    positions = structure.positions.copy()
    positions[index, slots] += np.float32(offset)
    return dataclasses.replace(structure, positions=positions)


def counts(violations):
    kinds = ("clashes", "bonds", "angles", "chain_breaks", "residue_distances")
    return tuple(getattr(violations, kind).count for kind in kinds)


@pytest.mark.parametrize("entry", ["1l2y", "2hhb"])
def test_real_structures_have_no_violations(entry):
    violations = find_violations(real_chain(entry))
    assert counts(violations) == (0, 0, 0, 0, 0)
    assert not violations.residues.any()


def test_clashes_of_a_rotated_side_chain(trp_cage):
    violations = find_violations(with_rotated_side_chain(trp_cage, 5, 240.0))
    assert counts(violations)[1:] == (0, 0, 0, 0)
    assert violations.clashes.count == 16
    assert 0.0 < violations.clashes.worst < 2.0
    assert violations.residues[5] and 2 <= violations.residues.sum() < 8


def test_the_overlap_is_measured_beyond_the_tolerance(trp_cage):
    # Only two atoms are left, at a distance of 1.2 angstrom.
    positions, mask = np.zeros_like(trp_cage.positions), np.zeros_like(trp_cage.atom_mask)
    positions[0, OXYGEN] = [0.0, 0.0, 1.2]
    mask[0, OXYGEN] = mask[10, CA] = True
    pair = dataclasses.replace(trp_cage, positions=positions, atom_mask=mask)
    violations = find_violations(pair)
    assert violations.clashes.count == 1
    assert violations.clashes.worst == pytest.approx(1.52 + 1.7 - 1.5 - 1.2, abs=1e-3)
    assert violations.residues.nonzero()[0].tolist() == [0, 10]


def test_a_stretched_peptide_bond(trp_cage):
    bond = trp_cage.positions[8, N] - trp_cage.positions[7, C]
    stretch = bond / np.linalg.norm(bond)
    # All residues from 8 on move, so that only the bonds between 7 and 8 change.
    violations = find_violations(moved(trp_cage, slice(8, None), slice(None), 0.4 * stretch))
    length = np.linalg.norm(bond) + 0.4
    assert violations.bonds.count == 1
    assert violations.bonds.worst == pytest.approx(length - 1.329 - 12 * 0.014, abs=1e-4)
    assert counts(violations)[2:] == (0, 0, 0)
    assert violations.residues.nonzero()[0].tolist() == [7, 8]


def test_a_broken_chain(trp_cage):
    violations = find_violations(moved(trp_cage, slice(10, None), slice(None), 30.0))
    assert violations.chain_breaks.count == violations.bonds.count == 1
    distance = np.linalg.norm(trp_cage.ca_positions[10] + 30.0 - trp_cage.ca_positions[9])
    assert violations.chain_breaks.worst == pytest.approx(distance - 5.30209737, abs=1e-3)


def test_residues_at_a_gap_are_no_neighbors(trp_cage):
    far = moved(trp_cage, slice(11, None), slice(None), 30.0)
    violations = find_violations(with_unknown_residues(far, 10))
    assert counts(violations) == (0, 0, 0, 0, 0)


def test_disulfide_bonds_are_no_clashes(trp_cage):
    cysteines = dataclasses.replace(trp_cage, sequence="C" * 20)
    mask = np.zeros_like(trp_cage.atom_mask)
    mask[[2, 9], atom_order["SG"]] = True
    positions = np.zeros_like(trp_cage.positions)
    positions[9, atom_order["SG"]] = [0.0, 0.0, 2.05]
    bonded = dataclasses.replace(cysteines, positions=positions, atom_mask=mask)
    assert find_violations(bonded).clashes.count == 0
    mask[9] = False
    mask[9, CA] = True
    positions[9, CA] = [0.0, 0.0, 1.9]
    assert find_violations(bonded).clashes.count == 1


def test_all_clashes_are_found():
    structure = with_noise(real_chain("2hhb"), 0.5)
    index, slots = np.nonzero(structure.atom_mask)
    points = structure.positions[index, slots].astype(float)
    names = np.array(atom_types)[slots]
    radii = np.array([van_der_waals_radius[name[0]] for name in names])
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    overlap = radii[:, None] + radii[None] - 1.5 - distances
    is_bond = (index[:, None] + 1 == index[None]) & (slots[:, None] == C) & (slots[None] == N)
    is_sulfur_pair = (names[:, None] == "SG") & (names[None] == "SG")
    is_clash = (index[:, None] < index[None]) & ~is_bond & ~is_sulfur_pair & (overlap > 0.0)
    found = find_violations(structure).clashes
    assert found.count == is_clash.sum() > 10
    assert found.worst == pytest.approx(overlap[is_clash].max(), abs=1e-5)


def test_distances_within_residues_agree_with_the_violation_loss():
    structure = with_noise(real_chain("1l2y"), 0.3)
    found = find_violations(structure).residue_distances
    aatype = torch.from_numpy(sequence_to_aatype(structure.sequence))[None]
    masks = make_atom14_masks(aatype)
    positions = gather_atoms(
        torch.from_numpy(structure.positions)[None], masks["residx_atom14_to_atom37"]
    )
    batch = SimpleNamespace(aatype=aatype, **masks)
    # The loss counts each pair four times.
    total = float(within_residue_violations(positions, batch, ViolationLossConfig())) / 4.0
    assert found.count > 20
    assert found.worst < total < found.count * found.worst
