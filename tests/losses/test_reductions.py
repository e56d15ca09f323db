"""Reductions agree with values computed by hand."""

import math

import pytest
import torch

from openfold_opt.losses.reductions import (
    cross_entropy,
    is_resolution_within,
    masked_mean,
    pairwise_distance,
)


def test_masked_mean_adds_eps_to_the_count():
    value, mask = torch.tensor([[1.0, 5.0], [3.0, 7.0]]), torch.tensor([[1.0], [0.0]])
    assert float(masked_mean(value, mask, dims=(-1, -2))) == pytest.approx(6.0 / (2.0 + 1e-4))
    assert masked_mean(value, mask, dims=(-1,)).tolist() == pytest.approx([6.0 / (2.0 + 1e-4), 0.0])


def test_cross_entropy_of_two_classes():
    logits = torch.tensor([[[0.0, math.log(3.0)]], [[0.0, 0.0]]])
    loss = cross_entropy(logits, torch.tensor([[0], [1]]))
    torch.testing.assert_close(loss, torch.tensor([[math.log(4.0)], [math.log(2.0)]]))


def test_resolution_range_is_inclusive_and_excludes_nan():
    is_within = is_resolution_within(torch.tensor([0.0, 0.1, 3.0, 3.1, float("nan")]), 0.1, 3.0)
    assert is_within.tolist() == [False, True, True, False, False]


def test_pairwise_distance_has_a_finite_gradient_for_coincident_points():
    points = torch.tensor([[0.0, 0, 0], [3.0, 4.0, 0]], requires_grad=True)
    distance = pairwise_distance(points, points, eps=1e-10)
    torch.testing.assert_close(distance, torch.tensor([[1e-5, 5.0], [5.0, 1e-5]]))
    distance.sum().backward()
    assert torch.isfinite(points.grad).all()
