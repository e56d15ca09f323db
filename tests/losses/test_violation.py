"""Violations agree with loops over atoms.

The terms are clashes between residues, distance bounds within residues, and peptide bonds.
"""

import math
from types import SimpleNamespace

import pytest
import torch

from openfold_opt.geometry.atoms import make_atom14_masks
from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.losses.violation import (
    between_residue_clashes,
    peptide_bond_loss,
    violation_loss,
    within_residue_violations,
)
from openfold_opt.protein import stereo_chemistry as chemistry
from openfold_opt.protein.residue_constants import residue_atoms, restype_1to3, sequence_to_aatype
from tests.support.loss_inputs import SEQUENCE

CONFIG = ViolationLossConfig()
SEQUENCES = ("CWPLA", "RCDXC")
N, CA, C = 0, 1, 2


def make_problem(seed=0):
    """Return random positions and features of two dense samples.

    The second sample has a gap in its numbering, an unknown residue and a missing atom.
    """
    generator = torch.Generator().manual_seed(seed)
    aatype = torch.stack([torch.from_numpy(sequence_to_aatype(sequence)) for sequence in SEQUENCES])
    features = make_atom14_masks(aatype)
    features["atom14_atom_exists"][1, 0, 5] = 0.0
    residue_index = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 5, 6, 7]])
    batch = SimpleNamespace(aatype=aatype, residue_index=residue_index, **features)
    return torch.randn(2, 5, 14, 3, generator=generator) * 1.5, batch


def existing_atoms(batch, sample):
    """Yield (residue, slot, van der Waals radius) of each atom."""
    names = [*restype_1to3.values()]
    for residue, restype in enumerate(batch.aatype[sample].tolist()):
        for slot, name in enumerate(residue_atoms[names[restype]] if restype < 20 else ()):
            if batch.atom14_atom_exists[sample, residue, slot]:
                yield residue, slot, chemistry.van_der_waals_radius[name[0]]


def looped_clashes(positions, batch, sample):
    total = 0.0
    index = batch.residue_index[sample].tolist()
    for i, a, radius in existing_atoms(batch, sample):
        for j, b, other_radius in existing_atoms(batch, sample):
            is_bond = index[i] + 1 == index[j] and a == C and b == N
            # Like the benchmark, this applies to slot 5 of all residues, not only of cysteine.
            if index[i] >= index[j] or is_bond or a == b == 5:
                continue
            distance = math.dist(positions[sample, i, a].tolist(), positions[sample, j, b].tolist())
            total += 2.0 * max(
                0.0, radius + other_radius - CONFIG.clash_overlap_tolerance_angstrom - distance
            )
    return total


def looped_within(positions, batch, sample):
    lower, upper = chemistry.make_atom14_dists_bounds(
        overlap_tolerance_angstrom=CONFIG.clash_overlap_tolerance_angstrom,
        bond_length_tolerance_factor=CONFIG.violation_tolerance_factor,
    )
    total = 0.0
    for i, a, _ in existing_atoms(batch, sample):
        for j, b, _ in existing_atoms(batch, sample):
            if i == j and a != b:
                restype = int(batch.aatype[sample, i])
                distance = math.dist(
                    positions[sample, i, a].tolist(), positions[sample, i, b].tolist()
                )
                total += 2.0 * max(
                    0.0, lower[restype, a, b] - distance, distance - upper[restype, a, b]
                )
    return total


@pytest.mark.parametrize(
    "function, looped",
    [(between_residue_clashes, looped_clashes), (within_residue_violations, looped_within)],
)
def test_violations_equal_the_loops(function, looped):
    positions, batch = make_problem()
    computed = function(positions, batch, CONFIG)
    for sample in range(2):
        expected = looped(positions, batch, sample)
        assert expected > 1.0
        assert float(computed[sample]) == pytest.approx(expected, rel=1e-4)


def test_gradient_of_clashes_equals_that_of_the_loops():
    positions, batch = make_problem(4)
    positions = positions.double().requires_grad_()
    weight = torch.tensor([0.5, -2.0], dtype=torch.float64)
    (between_residue_clashes(positions, batch, CONFIG) * weight).sum().backward()
    expected = torch.zeros_like(positions)
    for sample in range(2):
        index = batch.residue_index[sample].tolist()
        for i, a, radius in existing_atoms(batch, sample):
            for j, b, other_radius in existing_atoms(batch, sample):
                is_bond = index[i] + 1 == index[j] and a == C and b == N
                if index[i] >= index[j] or is_bond or a == b == 5:
                    continue
                offset = (positions[sample, i, a] - positions[sample, j, b]).detach()
                if offset.norm() < radius + other_radius - CONFIG.clash_overlap_tolerance_angstrom:
                    step = 2.0 * weight[sample] * offset / offset.norm()
                    expected[sample, i, a] -= step
                    expected[sample, j, b] += step
    assert expected.abs().max() > 1.0
    torch.testing.assert_close(positions.grad, expected, rtol=1e-6, atol=1e-9)


def looped_peptide_bonds(positions, batch, sample):
    """Compute the excess errors of the length, the angle at C and the angle at N.

    Each is averaged over the existing bonds.
    """
    letters = SEQUENCES[sample]
    terms = {"length": [], "angle at C": [], "angle at N": []}
    for i in range(4):
        if (
            batch.residue_index[sample, i + 1] != batch.residue_index[sample, i] + 1
            or "X" in letters[i : i + 2]
        ):
            continue
        ca, c = positions[sample, i, CA], positions[sample, i, C]
        n, next_ca = positions[sample, i + 1, N], positions[sample, i + 1, CA]
        kind = 1 if letters[i + 1] == "P" else 0
        length, stddev = (
            chemistry.between_residue_bond_length_c_n,
            chemistry.between_residue_bond_length_stddev_c_n,
        )
        cosine = torch.nn.functional.cosine_similarity
        measured = {
            "length": (float((n - c).norm()), length[kind], stddev[kind]),
            # Like the benchmark, the tolerance of this angle is that of the bond length.
            "angle at C": (
                float(cosine(ca - c, n - c, dim=0)),
                chemistry.between_residue_cos_angle_ca_c_n[0],
                stddev[0],
            ),
            "angle at N": (
                float(cosine(c - n, next_ca - n, dim=0)),
                *chemistry.between_residue_cos_angle_c_n_ca,
            ),
        }
        for name, (value, mean, deviation) in measured.items():
            terms[name].append(
                max(0.0, abs(value - mean) - CONFIG.violation_tolerance_factor * deviation)
            )
    return sum(sum(values) / len(values) for values in terms.values())


def test_peptide_bonds_equal_the_loops():
    positions, batch = make_problem(1)
    computed = peptide_bond_loss(positions, batch, CONFIG)
    for sample in range(2):
        assert float(computed[sample]) == pytest.approx(
            looped_peptide_bonds(positions, batch, sample), rel=1e-4
        )


def test_violation_loss_is_the_sum_with_clashes_per_atom():
    positions, batch = make_problem(2)
    computed = violation_loss(SimpleNamespace(sm_positions=positions[:, None]), batch, CONFIG)
    for sample in range(2):
        num_atoms = len(list(existing_atoms(batch, sample)))
        clashes = looped_clashes(positions, batch, sample) + looped_within(positions, batch, sample)
        expected = looped_peptide_bonds(positions, batch, sample) + clashes / num_atoms
        assert float(computed[sample]) == pytest.approx(expected, rel=1e-3)


def test_atoms_that_do_not_exist_have_no_gradient():
    positions, batch = make_problem(3)
    positions.requires_grad_()
    violation_loss(SimpleNamespace(sm_positions=positions[:, None]), batch, CONFIG).sum().backward()
    assert torch.isfinite(positions.grad).all()
    assert not positions.grad[batch.atom14_atom_exists == 0.0].any()
    assert positions.grad[batch.atom14_atom_exists == 1.0].any()


def test_ideal_backbone_has_no_violations(truth):
    positions = truth.atom14_gt_positions
    assert float(peptide_bond_loss(positions, truth, CONFIG)) == pytest.approx(0.0, abs=1e-5)
    assert float(within_residue_violations(positions, truth, CONFIG)) == pytest.approx(
        0.0, abs=1e-3
    )


def test_broken_peptide_bond_is_a_violation_except_at_a_gap(truth):
    positions = truth.atom14_gt_positions.clone()
    positions[:, 8:] += 5.0
    assert float(peptide_bond_loss(positions, truth, CONFIG)) > 0.1
    truth.residue_index = truth.residue_index + (torch.arange(len(SEQUENCE)) >= 8) * 10
    assert float(peptide_bond_loss(positions, truth, CONFIG)) == pytest.approx(0.0, abs=1e-5)


def test_coincident_residues_clash_and_have_finite_gradients(truth):
    positions = torch.zeros_like(truth.atom14_gt_positions).requires_grad_()
    outputs = SimpleNamespace(sm_positions=positions[:, None])
    assert float(between_residue_clashes(positions, truth, CONFIG).detach()) > 100.0
    violation_loss(outputs, truth, CONFIG).sum().backward()
    assert torch.isfinite(positions.grad).all()
