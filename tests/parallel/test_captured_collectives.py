"""Collectives inside a captured CUDA graph.

The tests cover the transfers of dynamic axial parallelism and the gradients reduced in autograd
hooks. A process group of one rank runs the collectives in a single process.
"""

import dataclasses

import pytest
import torch

from openfold_opt.parallel.async_collective import AsyncCollective
from openfold_opt.parallel.transfers import AllGather, AllToAll
from openfold_opt.train.graphs.recorder import CudaRecorder
from tests.support.devices import DEVICES
from tests.support.lone_group import lone_axis, lone_group, lone_training_context
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import (
    FakeRecorder,
    kernels_for,
    micro_batch,
    new_graphs,
    new_step,
)

NUM_REPLAYS = {"cpu": 3, "cuda": 20}
"""On a CPU the substitute recorder reruns the Python code, so a few replays are sufficient."""


def recorder_for(device):
    """Return the recorder of the device; on a CPU it reruns the work including the collectives."""
    return CudaRecorder(device) if device.type == "cuda" else FakeRecorder()


def send(x, transfer):
    return AsyncCollective(x, transfer, what="test tensor").wait()


def loss_of(x, weight, axis):
    """Compute matrix products with an all-to-all and an all-gather.

    Their gradients are an all-to-all and a reduce-scatter.
    """
    rows = send(x @ weight, AllToAll(axis=axis, split_dim=1, join_dim=0, join_length=x.shape[0]))
    gathered = send(torch.tanh(rows @ weight), AllGather(axis=axis, dim=0, length=x.shape[0]))
    return gathered.square().sum()


@pytest.mark.parametrize("device", DEVICES)
def test_axial_collectives_and_their_gradients_are_replayed(device):
    device = torch.device(device)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 16, generator=generator).to(device).requires_grad_()
    x = torch.zeros(8, 16, device=device)
    gradient = torch.zeros_like(weight)
    with lone_group(device) as group:
        axis = lone_axis("dap", group)

        def work():
            (weight_gradient,) = torch.autograd.grad(loss_of(x, weight, axis), [weight])
            gradient.copy_(weight_gradient)

        recorder = recorder_for(device)
        recorder.warm_up_run(work)
        capture = recorder.record(work)
        for _ in range(NUM_REPLAYS[device.type]):
            x.copy_(torch.randn(8, 16, generator=generator))
            capture.replay()
            output = torch.tanh(x @ weight @ weight)
            (expected,) = torch.autograd.grad(output.square().sum(), [weight])
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
        # NCCL does not shut down while a graph holds its collectives.
        capture.reset()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_reduced_in_autograd_hooks_are_replayed(device, overlap, accumulation):
    config = tiny_config(device=device, kernels=kernels_for(device), accumulation=accumulation)
    parallel = dataclasses.replace(config.parallel, overlap=overlap, gradient_bucket_bytes=4096)
    config = dataclasses.replace(config, parallel=parallel)
    device = torch.device(device)
    with lone_group(device) as group:
        context = lone_training_context(group)
        graphs, _ = new_graphs(config, recorder_for(device), device, context)
        eager, single = new_step(config, device, context), new_step(config, device)
        for number in range(1, NUM_REPLAYS[device.type] + 1):
            seeds = [10 * number + micro for micro in range(accumulation)]
            batches = [micro_batch(config, seed, device=device) for seed in seeds]
            result, expected = (
                runner.run(
                    iter(batches),
                    step=number,
                    learning_rate=LEARNING_RATE,
                    num_recycling_iterations=0,
                ).read()
                for runner in (graphs, eager)
            )
            assert result.is_applied and result.loss == pytest.approx(expected.loss, rel=1e-3)
            assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-2)
            if number == 1:
                # The sum over one rank is divided by two, so the gradients were all-reduced.
                whole = single.run(
                    iter(batches), step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=0
                ).read()
                assert result.gradient_norm == pytest.approx(whole.gradient_norm / 2, rel=1e-2)
        assert graphs.num_eager_steps == 0
        # NCCL does not shut down while a graph holds its collectives.
        graphs.release()
