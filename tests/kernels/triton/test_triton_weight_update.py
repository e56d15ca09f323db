"""Optimizer step in Triton compared with the reference, with clipped and skipped steps."""

import dataclasses

import pytest
import torch

from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.kernels.reference.weight_update import weight_update as reference
from openfold_opt.kernels.triton.weight_update import weight_update
from tests.support.kernel_agreement import DEVICE, random

CONSTANTS = WeightUpdateConstants(
    beta_1=0.9, beta_2=0.999, epsilon=1e-6, max_norm=0.1, decay_rate=0.9
)


def new_state(n: int, *, with_copy: bool) -> WeightState:
    zeros = {name: torch.zeros(n, device=DEVICE) for name in ("exp_avg", "exp_avg_sq", "average")}
    counts = {
        "num_steps": torch.zeros((), dtype=torch.float64, device=DEVICE),
        "num_updates": torch.zeros((), device=DEVICE),
    }
    copy = torch.zeros(n, dtype=torch.bfloat16, device=DEVICE) if with_copy else None
    return WeightState(values=random(n), compute_copy=copy, **zeros, **counts)


def tensors(state: WeightState) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(("n", "with_copy"), [(1, False), (9001, False), (4096, True)])
def test_six_steps(n, with_copy):
    ours, theirs = new_state(n, with_copy=with_copy), new_state(n, with_copy=with_copy)
    for step in range(6):
        gradient = random(n, seed=step + 1, scale=1e-4 if step == 3 else 1.0)
        if step == 4:
            gradient[n // 2] = float("inf")
        flag = torch.tensor(float("nan") if step == 2 else 0.0, device=DEVICE)
        options = {"learning_rate": 1e-3 * (step + 1), "flag": flag, "constants": CONSTANTS}
        before = {name: value.clone() for name, value in tensors(ours).items()}
        found, expected = (
            weight_update(ours, gradient.clone(), **options),
            reference(theirs, gradient.clone(), **options),
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
        for name, value in tensors(ours).items():
            torch.testing.assert_close(value, tensors(theirs)[name], rtol=3e-6, atol=1e-7)
            assert step not in (2, 4) or torch.equal(value, before[name]), name
    assert ours.num_steps.item() == ours.num_updates.item() == 4


def test_the_first_average_is_a_copy_and_the_learning_rate_may_be_on_the_device():
    state = new_state(33, with_copy=True)
    rate = torch.tensor(0.5, dtype=torch.float64, device=DEVICE)
    weight_update(
        state,
        random(33, seed=1),
        learning_rate=rate,
        flag=torch.zeros((), device=DEVICE),
        constants=CONSTANTS,
    )
    assert torch.equal(state.average, state.values)
    assert torch.equal(state.compute_copy, state.values.bfloat16())
