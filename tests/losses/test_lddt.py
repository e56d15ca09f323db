"""lDDT on structures whose figure can be worked out by hand."""

import pytest
import torch

from openfold_opt.losses.lddt import lddt


def line(*x):
    return torch.tensor([[value, 0.0, 0.0] for value in x])


def test_the_same_structure_has_one():
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * 5
    torch.testing.assert_close(lddt(points, points, torch.ones(9)), torch.ones(9))


def test_thresholds_and_cutoff():
    true = line(0.0, 10.0, 30.0)
    predicted = line(0.0, 11.5, 90.0)
    # only the pair 0-1 is nearer than 15; it is off by 1.5, within two of the four thresholds
    assert float(lddt(predicted, true, torch.ones(3), per_residue=False)) == pytest.approx(0.5)
    torch.testing.assert_close(lddt(predicted, true, torch.ones(3)), torch.tensor([0.5, 0.5, 1.0]))


def test_unresolved_residues_do_not_count():
    true, predicted = line(0.0, 3.0, 6.0), line(0.0, 3.0, 99.0)
    mask = torch.tensor([1.0, 1.0, 0.0])
    assert float(lddt(predicted, true, mask, per_residue=False)) == pytest.approx(1.0)


def test_a_mirror_image_cannot_be_told_apart():
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)) * 5
    mirrored = points * torch.tensor([1.0, 1.0, -1.0])
    assert float(lddt(mirrored, points, torch.ones(12), per_residue=False)) == pytest.approx(1.0)
