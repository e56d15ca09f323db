"""Optimizer step compared with torch.optim.Adam, torch clipping, and explicit equations."""

import dataclasses

import pytest
import torch
from torch import nn

from openfold_opt.kernels.cpu import weight_update as cpu
from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.kernels.reference.weight_update import weight_update

CONSTANTS = WeightUpdateConstants(
    beta_1=0.9, beta_2=0.999, epsilon=1e-6, max_norm=0.1, decay_rate=0.9
)
FINITE = torch.tensor(0.0)
FIELDS = ("values", "exp_avg", "exp_avg_sq", "average", "num_steps", "num_updates")


def new_state(n: int, seed: int = 0) -> WeightState:
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    zeros = [torch.zeros(n) for _ in range(3)]
    counts = {"num_steps": torch.zeros((), dtype=torch.float64), "num_updates": torch.zeros(())}
    return WeightState(
        values=values, exp_avg=zeros[0], exp_avg_sq=zeros[1], average=zeros[2], **counts
    )


def gradient(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) * scale


def test_ten_steps_match_clipping_and_adam_of_torch():
    state = new_state(1001)
    parameter = nn.Parameter(state.values.clone())
    adam = torch.optim.Adam([parameter], lr=1e-2, betas=(0.9, 0.999), eps=1e-6)
    for step in range(10):
        parameter.grad = gradient(1001, step + 1, scale=10.0 ** (step - 6))
        ours = parameter.grad.clone()
        expected_norm = nn.utils.clip_grad_norm_([parameter], max_norm=0.1)
        adam.param_groups[0]["lr"] = rate = 1e-2 / (step + 1)
        is_applied, norm = weight_update(
            state, ours, learning_rate=rate, flag=FINITE, constants=CONSTANTS
        )
        adam.step()
        assert is_applied == 1.0
        torch.testing.assert_close(norm, expected_norm)
        torch.testing.assert_close(state.values, parameter.detach(), rtol=1e-6, atol=1e-7)


def test_the_first_step_matches_the_equations():
    state = new_state(1)
    state.values.fill_(2.0)
    constants = WeightUpdateConstants(
        beta_1=0.9, beta_2=0.999, epsilon=1e-6, max_norm=1e9, decay_rate=0.9
    )
    weight_update(state, torch.tensor([0.5]), learning_rate=0.1, flag=FINITE, constants=constants)
    # m = 0.05 and v = 0.00025 are corrected to g and g**2: the step is lr * g / (|g| + eps).
    assert state.values.item() == pytest.approx(2.0 - 0.1 * 0.5 / (0.5 + 1e-6), abs=1e-7)
    assert state.exp_avg.item() == pytest.approx(0.05) and state.exp_avg_sq.item() == pytest.approx(
        0.00025
    )


def test_the_first_average_copies_and_the_next_moves_by_a_tenth():
    state = new_state(12)
    expected = None
    for step in range(5):
        weight_update(
            state, gradient(12, step), learning_rate=0.5, flag=FINITE, constants=CONSTANTS
        )
        expected = (
            state.values.clone() if expected is None else expected + 0.1 * (state.values - expected)
        )
        torch.testing.assert_close(state.average, expected, rtol=1e-6, atol=1e-6)
        assert step or torch.equal(state.average, state.values)
    assert state.num_updates.item() == 5


@pytest.mark.parametrize("where", ["gradient", "flag"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_does_not_change_the_state(where, bad):
    state = new_state(40)
    for step in range(2):
        before = [getattr(state, name).clone() for name in FIELDS]
        broken = gradient(40, step)
        if where == "gradient":
            broken[3] = bad
        flag = torch.tensor(bad if where == "flag" else 0.0)
        is_applied, _ = weight_update(
            state, broken, learning_rate=1e-2, flag=flag, constants=CONSTANTS
        )
        assert is_applied == 0.0
        for name, old in zip(FIELDS, before, strict=True):
            assert torch.equal(getattr(state, name), old), (name, step)
        weight_update(
            state, gradient(40, step), learning_rate=1e-2, flag=FINITE, constants=CONSTANTS
        )
    assert state.num_steps.item() == state.num_updates.item() == 2


def test_the_compute_copy_is_updated():
    state = new_state(9)
    state = WeightState(
        **{name: getattr(state, name) for name in FIELDS},
        compute_copy=torch.zeros(9, dtype=torch.bfloat16),
    )
    weight_update(state, gradient(9, 1), learning_rate=1e-2, flag=FINITE, constants=CONSTANTS)
    assert torch.equal(state.compute_copy, state.values.bfloat16())


@pytest.mark.parametrize("has_copy", [False, True])
def test_the_cpu_kernel_matches_the_reference(has_copy):
    states = [new_state(1000), new_state(1000)]
    if has_copy:
        states = [
            dataclasses.replace(state, compute_copy=torch.zeros(1000, dtype=torch.bfloat16))
            for state in states
        ]
    for step, flag in enumerate((FINITE, FINITE, torch.tensor(torch.nan), FINITE)):
        results = [
            update(state, gradient(1000, step), learning_rate=1e-2, flag=flag, constants=CONSTANTS)
            for update, state in zip((weight_update, cpu.weight_update), states)
        ]
        assert torch.equal(*results)
        for name in (*FIELDS, *(("compute_copy",) if has_copy and step != 2 else ())):
            # The CPU kernel rounds some products and sums once instead of twice.
            torch.testing.assert_close(
                *(getattr(state, name) for state in states),
                rtol=1e-6 if name != "compute_copy" else 2**-7,
                atol=1e-7,
            )
