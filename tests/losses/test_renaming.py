"""The choice of names against a loop over atoms."""

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
    """Random atoms of one sample; many are missing."""
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


def looped_misfit(predicted, true, batch, residue):
    """Algorithm 26: distances of the residue's exchangeable atoms to all atoms that are not."""
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


def test_equals_the_loop(batch):
    generator = torch.Generator().manual_seed(1)
    predicted = torch.randn(1, len(SEQUENCE), 14, 3, generator=generator) * 4
    got = rename_ground_truth(predicted, batch)
    exchanged = []
    for residue in range(len(SEQUENCE)):
        kept = looped_misfit(predicted, batch.atom14_gt_positions, batch, residue)
        renamed = looped_misfit(predicted, batch.atom14_alt_gt_positions, batch, residue)
        prefix = "atom14_alt_gt" if renamed < kept else "atom14_gt"
        frames = "rigidgroups_alt_gt_frames" if renamed < kept else "rigidgroups_gt_frames"
        exchanged.append(renamed < kept)
        assert torch.equal(
            got.atom14_positions[0, residue], getattr(batch, prefix + "_positions")[0, residue]
        )
        assert torch.equal(
            got.atom14_exists[0, residue], getattr(batch, prefix + "_exists")[0, residue]
        )
        assert torch.equal(got.rigid_group_frames[0, residue], getattr(batch, frames)[0, residue])
    assert any(exchanged) and not all(exchanged[SEQUENCE.index(letter)] for letter in "DEFY")


def test_a_prediction_that_is_no_number_keeps_the_names(batch):
    predicted = torch.full((1, len(SEQUENCE), 14, 3), float("nan"))
    got = rename_ground_truth(predicted, batch)
    assert torch.equal(got.atom14_positions, batch.atom14_gt_positions)


def test_no_gradient_flows_through_the_choice(batch):
    predicted = batch.atom14_gt_positions.clone().requires_grad_()
    assert not rename_ground_truth(predicted, batch).atom14_positions.requires_grad
