"""lDDT of structures with a known value."""

import pytest
import torch

from openfold_opt.losses.lddt import lddt


def points_on_a_line(*x):
    return torch.tensor([[value, 0.0, 0.0] for value in x])


def test_lddt_of_identical_structures_is_one():
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * 5
    torch.testing.assert_close(lddt(points, points, torch.ones(9)), torch.ones(9))


def test_lddt_uses_thresholds_and_cutoff():
    true = points_on_a_line(0.0, 10.0, 30.0)
    predicted = points_on_a_line(0.0, 11.5, 90.0)
    # Only the pair 0-1 is within the cutoff of 15. Its error is 1.5, below two of four thresholds.
    assert float(lddt(predicted, true, torch.ones(3), per_residue=False)) == pytest.approx(0.5)
    torch.testing.assert_close(lddt(predicted, true, torch.ones(3)), torch.tensor([0.5, 0.5, 1.0]))


def test_unresolved_residues_are_ignored():
    true, predicted = points_on_a_line(0.0, 3.0, 6.0), points_on_a_line(0.0, 3.0, 99.0)
    mask = torch.tensor([1.0, 1.0, 0.0])
    assert float(lddt(predicted, true, mask, per_residue=False)) == pytest.approx(1.0)


def test_lddt_is_invariant_under_reflection():
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)) * 5
    mirrored = points * torch.tensor([1.0, 1.0, -1.0])
    assert float(lddt(mirrored, points, torch.ones(12), per_residue=False)) == pytest.approx(1.0)
