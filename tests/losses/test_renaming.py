"""Renaming of ambiguous atoms agrees with a loop over atoms."""

import math
from types import SimpleNamespace

import pytest
import torch

from openfold_opt.geometry.atoms import make_atom14_positions
from openfold_opt.losses.renaming import rename_ground_truth
from openfold_opt.protein.residue_constants import sequence_to_aatype

SEQUENCE = "DAEFYGDR"


@pytest.fixture
def batch():
    """Random atoms of one sample, many of them missing."""
    generator = torch.Generator().manual_seed(0)
    aatype = torch.from_numpy(sequence_to_aatype(SEQUENCE))[None]
    positions = torch.randn(1, len(SEQUENCE), 37, 3, generator=generator) * 4
    mask = (torch.rand(1, len(SEQUENCE), 37, generator=generator) < 0.6).float()
    frames = torch.randn(2, 1, len(SEQUENCE), 8, 4, 4, generator=generator)
    return SimpleNamespace(
        aatype=aatype,
        rigidgroups_gt_frames=frames[0],
        rigidgroups_alt_gt_frames=frames[1],
        **make_atom14_positions(aatype, positions, mask),
    )


def looped_distance_error(predicted, true, batch, residue):
    """Compute the criterion of Algorithm 26 for one residue.

    It is the error of the distances from the ambiguous atoms of the residue to all unambiguous
    atoms.
    """
    exists, ambiguous = (
        batch.atom14_gt_exists[0].tolist(),
        batch.atom14_atom_is_ambiguous[0].tolist(),
    )
    total = 0.0
    for a in range(14):
        if not (exists[residue][a] and ambiguous[residue][a]):
            continue
        for j in range(len(SEQUENCE)):
            for b in range(14):
                if exists[j][b] and not ambiguous[j][b]:
                    distances = (
                        math.dist(x[0, residue, a].tolist(), x[0, j, b].tolist())
                        for x in (predicted, true)
                    )
                    total += abs(next(distances) - next(distances))
    return total


def test_renaming_equals_the_loop(batch):
    generator = torch.Generator().manual_seed(1)
    predicted = torch.randn(1, len(SEQUENCE), 14, 3, generator=generator) * 4
    truth = rename_ground_truth(predicted, batch)
    is_renamed = []
    for residue in range(len(SEQUENCE)):
        original = looped_distance_error(predicted, batch.atom14_gt_positions, batch, residue)
        renamed = looped_distance_error(predicted, batch.atom14_alt_gt_positions, batch, residue)
        prefix = "atom14_alt_gt" if renamed < original else "atom14_gt"
        frames = "rigidgroups_alt_gt_frames" if renamed < original else "rigidgroups_gt_frames"
        is_renamed.append(renamed < original)
        assert torch.equal(
            truth.atom14_positions[0, residue], getattr(batch, prefix + "_positions")[0, residue]
        )
        assert torch.equal(
            truth.atom14_exists[0, residue], getattr(batch, prefix + "_exists")[0, residue]
        )
        assert torch.equal(truth.rigid_group_frames[0, residue], getattr(batch, frames)[0, residue])
    assert any(is_renamed) and not all(is_renamed[SEQUENCE.index(letter)] for letter in "DEFY")


def test_nan_prediction_keeps_the_names(batch):
    predicted = torch.full((1, len(SEQUENCE), 14, 3), float("nan"))
    truth = rename_ground_truth(predicted, batch)
    assert torch.equal(truth.atom14_positions, batch.atom14_gt_positions)


def test_renamed_truth_has_no_gradient(batch):
    predicted = batch.atom14_gt_positions.clone().requires_grad_()
    assert not rename_ground_truth(predicted, batch).atom14_positions.requires_grad


def test_ambiguous_atoms_are_renamed_to_fit_the_prediction(truth):
    kept = rename_ground_truth(truth.atom14_gt_positions, truth)
    torch.testing.assert_close(kept.atom14_positions, truth.atom14_gt_positions)
    renamed = rename_ground_truth(truth.atom14_alt_gt_positions, truth)
    torch.testing.assert_close(renamed.atom14_positions, truth.atom14_alt_gt_positions)
    torch.testing.assert_close(renamed.rigid_group_frames, truth.rigidgroups_alt_gt_frames)
    assert not torch.equal(kept.atom14_positions, renamed.atom14_positions)
