"""Geometry of synthetic structures: bonds, angles, chirality, torsions, no clashes."""

import numpy as np
import pytest
import torch

from data_prep.synthesize.build import build_atoms
from data_prep.synthesize.families import draw_fold, draw_member, draw_sequence
from data_prep.synthesize.grammar import (
    CLASS_LETTERS,
    LETTER_CLASS,
    backbone_torsions,
    chi_torsions,
)
from openfold_opt.geometry.torsions import atom37_to_torsion_angles
from openfold_opt.protein.residue_constants import atom_order, restype_1to3, sequence_to_aatype
from openfold_opt.protein.stereo_chemistry import bonds_and_angles

N, CA, C, CB = (atom_order[name] for name in ("N", "CA", "C", "CB"))
ALL_LETTERS = "ARNDCQEGHILKMFPSTWYV"


@pytest.fixture(scope="module")
def members():
    random = np.random.default_rng(11)
    sequences = []
    for _ in range(30):
        fold = draw_fold(random)
        sequences.append(draw_member(draw_sequence(fold, random), fold, random, rate=0.5))
    return [(sequence, *build_atoms(sequence)) for sequence in [*sequences, ALL_LETTERS]]


def test_the_grammar_has_each_letter_once():
    assert sorted("".join(CLASS_LETTERS.values())) == sorted(LETTER_CLASS) == sorted(ALL_LETTERS)


def test_bonds_inside_residues(members):
    for sequence, positions, _ in members:
        for letter, atoms in zip(sequence, positions, strict=True):
            for bond in bonds_and_angles(restype_1to3[letter])[0]:
                length = np.linalg.norm(
                    atoms[atom_order[bond.atom_1]] - atoms[atom_order[bond.atom_2]]
                )
                # The ring of proline closes only approximately with two torsions.
                tolerance = 0.25 if letter == "P" else 0.06
                assert length == pytest.approx(bond.length, abs=tolerance), (letter, bond)


def test_peptide_bonds(members):
    for sequence, positions, _ in members:
        bond = np.linalg.norm(positions[1:, N] - positions[:-1, C], axis=-1)
        expected = [1.341 if letter == "P" else 1.329 for letter in sequence[1:]]
        np.testing.assert_allclose(bond, expected, atol=1e-3)
        ca = np.linalg.norm(positions[1:, CA] - positions[:-1, CA], axis=-1)
        np.testing.assert_allclose(ca, 3.80, atol=0.05)


def test_residues_are_left_handed_amino_acids(members):
    for sequence, positions, mask in members:
        n, c, cb = (positions[:, atom] - positions[:, CA] for atom in (N, C, CB))
        volume = (np.cross(n, c) * cb).sum(-1)[mask[:, CB]]
        assert (volume > 2.0).all(), sequence


def test_torsions_are_those_of_the_grammar(members):
    for sequence, positions, mask in members:
        aatype = torch.from_numpy(sequence_to_aatype(sequence))
        sin_cos, _, exists = atom37_to_torsion_angles(
            aatype, torch.from_numpy(positions), torch.from_numpy(mask).float()
        )
        omega = np.full((len(sequence), 1), 180.0)
        expected = np.deg2rad(
            np.concatenate([omega, backbone_torsions(sequence), chi_torsions(sequence)], axis=1)
        )
        error = np.stack([np.sin(expected), np.cos(expected)], axis=-1) - sin_cos.numpy()
        assert np.abs(error * exists.numpy()[..., None]).max() < 0.02, sequence


def test_backbones_do_not_clash(members):
    for sequence, positions, mask in members[:-1]:
        atoms = [N, CA, C, atom_order["O"], CB]
        points, exists = positions[:, atoms].reshape(-1, 3), mask[:, atoms].reshape(-1)
        residue = np.repeat(np.arange(len(sequence)), len(atoms))
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        apart = (residue[None] - residue[:, None] >= 3) & exists[:, None] & exists[None]
        assert distance[apart].min() >= 2.6, sequence
