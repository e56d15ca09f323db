"""Outputs and gradients of the model with fused kernels equal those with reference kernels.

The test runs on a GPU if there is one.
"""

import dataclasses

import pytest
import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.plan import ExecutionPlan
from tests.support.tiny_model import randomized

REFERENCE = ExecutionPlan.reference()


@pytest.fixture
def sizes():
    """Few residues and rows: a kernel takes milliseconds per program on a CPU."""
    return {"batch": 2, "num_passes": 2, "N_res": 5, "N_clust": 2, "N_extra": 3, "N_templ": 2}


@pytest.fixture
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def outputs_and_gradients(model, batch, plan):
    slots = torch.arange(batch.batch_size, device=batch.aatype.device)
    dropout = DropoutState(seed=7, step=3, slots=slots)
    model.zero_grad()
    outputs = model(batch, plan, num_recycling_iterations=1, dropout=dropout)
    (
        outputs.pair.square().mean()
        + outputs.msa.square().mean()
        + outputs.sm_positions.square().mean()
    ).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {"pair": outputs.pair, "msa": outputs.msa, "positions": outputs.sm_positions} | gradients


@pytest.mark.parametrize("fused_attention", [True, False])
def test_outputs_and_gradients_with_dropout_and_recycling(
    small_config, random_batch, device, fused_attention
):
    names = dataclasses.replace(KernelConfig.all("triton"), fused_attention=fused_attention)
    kernels = build_kernel_set(names, device)
    fused = dataclasses.replace(REFERENCE, kernels=kernels)
    model, batch = randomized(small_config).to(device), random_batch.to(device)
    reference = outputs_and_gradients(model, batch, REFERENCE)
    expected = {name: value.detach().clone() for name, value in reference.items()}
    actual = outputs_and_gradients(model, batch, fused)
    assert set(actual) == set(expected)
    for name, value in expected.items():
        # The scale has a lower bound, because some gradients are zero up to rounding, such as those
        # of biases that cancel in the softmax.
        scale = max(value.abs().max().item(), 1e-3)
        error = (actual[name] - value).abs().max().item()
        assert error <= 2e-3 * scale, (name, error, scale)
