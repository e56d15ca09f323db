"""Collectives inside of a capture: the transfers of dynamic axial parallelism, and gradients that
autograd hooks send. A group of one rank makes them run in one process."""

import dataclasses

import pytest
import torch

from openfold_opt.kernels.select import KernelConfig
from openfold_opt.parallel.flight import Flight
from openfold_opt.parallel.transfers import AllGather, AllToAll
from openfold_opt.train.graphs.recorder import CudaRecorder
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.setup import build_model, build_plans, build_train_step
from tests.support.devices import DEVICES
from tests.support.lone_group import lone_axis, lone_group, lone_training_context
from tests.train.synthetic import tiny_config
from tests.train.test_step_graphs import StandIn, micro_batch

NUM_REPLAYS = {"cpu": 3, "cuda": 20}
"""On a CPU a stand-in does the work again, so few replays show a mistake."""


def recorder_for(device):
    return CudaRecorder(device) if device.type == "cuda" else StandIn()


def send(x, transfer):
    return Flight(x, transfer, what="test tensor").arrive()


def loss_of(x, weight, axis):
    """Matrix products between an all-to-all and an all-gather, whose gradients are an all-to-all
    and a reduce-scatter."""
    rows = send(x @ weight, AllToAll(axis=axis, split_dim=1, join_dim=0, join_length=x.shape[0]))
    whole = send(torch.tanh(rows @ weight), AllGather(axis=axis, dim=0, length=x.shape[0]))
    return whole.square().sum()


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
            (found,) = torch.autograd.grad(loss_of(x, weight, axis), [weight])
            gradient.copy_(found)

        recorder = recorder_for(device)
        recorder.rehearse(work)
        recording = recorder.record(work)
        for _ in range(NUM_REPLAYS[device.type]):
            x.copy_(torch.randn(8, 16, generator=generator))
            recording.replay()
            whole = torch.tanh(x @ weight @ weight)
            (expected,) = torch.autograd.grad(whole.square().sum(), [weight])
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
        # NCCL does not end while a graph holds its collectives
        recording.reset()


def new_step(config, context, device):
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    return build_train_step(config, model, plan=plan, context=context, seed=1)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_sent_by_autograd_hooks_are_replayed(device, overlap):
    device = torch.device(device)
    kernels = KernelConfig.all("triton" if device.type == "cuda" else "reference")
    config = tiny_config(device=device.type, kernels=kernels)
    parallel = dataclasses.replace(config.parallel, overlap=overlap, gradient_bucket_bytes=4096)
    config = dataclasses.replace(config, parallel=parallel)
    with lone_group(device) as group:
        context = lone_training_context(group)
        step, eager = (new_step(config, context, device) for _ in range(2))
        start = [x.clone() for x in vars(step.weight_state()).values() if x is not None]
        batch = micro_batch(config, 1, device=device)
        graphs = StepGraphs(step, recorder_for(device), micro_batches=[batch])
        graphs.rehearse(0)
        graphs.record(0)
        with torch.no_grad():
            state = [x for x in vars(step.weight_state()).values() if x is not None]
            for tensor, before in zip(state, start, strict=True):
                tensor.copy_(before)
        for number in range(1, NUM_REPLAYS[device.type] + 1):
            batch = micro_batch(config, number, device=device)
            found = graphs.run([batch], step=number, num_recycling_passes=0).read()
            expected = eager.run([batch], step=number, num_recycling_passes=0).read()
            # the gradient is half of that of one rank alone, so its norm is, too
            assert found.is_applied and found.loss == pytest.approx(expected.loss, rel=1e-3)
            assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-2)
        assert graphs.num_eager_steps == 0
        graphs.release()
