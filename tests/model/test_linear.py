"""Initial values of Linear and LayerNorm, and joint projections."""

import pytest
import torch
from torch import nn

from openfold_opt.model.linear import JoinedLinears, LayerNorm, Linear, initialize_parameters


@pytest.mark.parametrize(
    ("init", "variance"),
    [("default", 1.0 / 400), ("relu", 2.0 / 400), ("glorot", 2.0 / 700), ("normal", 1.0 / 400)],
)
def test_variance_of_random_initial_values(init, variance):
    linear = Linear(400, 300, init=init)
    initialize_parameters(linear, seed=0)
    assert linear.weight.var().item() == pytest.approx(variance, rel=0.03)
    assert linear.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert torch.equal(linear.bias, torch.zeros(300))


def test_truncated_normal_is_limited_to_two_standard_deviations():
    linear = Linear(100, 300)
    initialize_parameters(linear, seed=0)
    assert linear.weight.abs().max().item() <= 2 * (1.0 / 100) ** 0.5 / 0.8796256610342398 * (
        1 + 1e-6
    )


@pytest.mark.parametrize(("init", "bias"), [("gating", 1.0), ("final", 0.0)])
def test_constant_initial_values(init, bias):
    linear = Linear(4, 3, init=init)
    initialize_parameters(linear, seed=0)
    assert torch.equal(linear.weight, torch.zeros(3, 4))
    assert torch.equal(linear.bias, torch.full((3,), bias))


def test_an_unknown_initialization_is_an_error():
    with pytest.raises(ValueError, match="unknown initialization 'zeros'"):
        Linear(4, 3, init="zeros")


def two_layers():
    return nn.ModuleDict({"a": Linear(4, 3), "b": Linear(4, 3)})


def test_values_depend_on_seed_and_name_only_and_keep_the_random_state_of_torch():
    first, second, other = two_layers(), two_layers(), two_layers()
    before = torch.get_rng_state()
    initialize_parameters(first, seed=5)
    initialize_parameters(second["b"], seed=5)
    initialize_parameters(other, seed=6)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first["a"].weight, first["b"].weight)
    assert not torch.equal(first["a"].weight, other["a"].weight)
    initialize_parameters(second, seed=5)
    assert torch.equal(first["b"].weight, second["b"].weight)


def test_joint_projections_equal_separate_projections():
    linears = (Linear(5, 3), Linear(5, 4, bias=False), Linear(5, 2))
    for seed, linear in enumerate(linears):
        initialize_parameters(linear, seed=seed)
        if linear.bias is not None:
            nn.init.normal_(linear.bias)
    x = torch.randn(2, 7, 5)
    outputs = JoinedLinears(*linears).project(x).split((3, 4, 2), dim=-1)
    for output, linear in zip(outputs, linears):
        torch.testing.assert_close(output, linear(x))


def test_layer_norm_starts_as_the_identity_on_normalized_input():
    norm = LayerNorm(6)
    assert torch.equal(norm.weight, torch.ones(6)) and torch.equal(norm.bias, torch.zeros(6))
