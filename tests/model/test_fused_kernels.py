"""The whole model with fused kernels: outputs and gradients of the plain one. On a GPU if possible."""

import dataclasses

import pytest
import torch

from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.plan import ExecutionPlan
from tests.model.test_alphafold import randomized

PLAIN = ExecutionPlan.reference()


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


def test_outputs_and_gradients_with_dropout_and_recycling(small_config, random_batch, device):
    fused = dataclasses.replace(PLAIN, kernels=build_kernel_set(KernelConfig.all("triton"), device))
    model, batch = randomized(small_config).to(device), random_batch.to(device)
    plain = outputs_and_gradients(model, batch, PLAIN)
    expected = {name: value.detach().clone() for name, value in plain.items()}
    found = outputs_and_gradients(model, batch, fused)
    assert set(found) == set(expected)
    for name, value in expected.items():
        # what is nought but for rounding (biases that the softmax does not see) is compared with the largest of its kind
        scale = max(value.abs().max().item(), 1e-3)
        error = (found[name] - value).abs().max().item()
        assert error <= 2e-3 * scale, (name, error, scale)
