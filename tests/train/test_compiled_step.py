"""A training step with compiled parts computes the losses and gradients of the eager step."""

import dataclasses

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

from openfold_opt.model.compiled_parts import COMPILED_PARTS, CompiledParts
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_plans, build_train_step
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.step import StepNumbers
from tests.support.synthetic_samples import tiny_config
from tests.support.tiny_steps import FakeRecorder, micro_batch, new_step, record_gradients

CPU = torch.device("cpu")
TOLERANCE = 1e-5


class CountingBackend:
    """Traces forward and backward pass to operators, as TorchInductor does, and runs these."""

    def __init__(self):
        self.num_graphs = 0

    def __call__(self, graph, inputs):
        self.num_graphs += 1
        return aot_eager(graph, inputs)


def step_with(parts, backend):
    """Return the tiny step with these parts compiled by a backend."""
    config = tiny_config()
    plan, _ = build_plans(config, ParallelContext.alone(), CPU)
    plan = dataclasses.replace(plan, compiled_parts=CompiledParts(parts, backend=backend))
    model = build_model(config, seed=1, device=CPU)
    return build_train_step(config, model, plan=plan, context=ParallelContext.alone(), seed=1)


def gradients_of(step):
    """Return the loss terms, the gradients and the names of the parameters that got one."""
    reached = record_gradients(step)
    numbers = StepNumbers(step=1, learning_rate=1e-3, dropout_seed=7)
    step.buffer.zero_gradients()
    terms = step.forward_backward(
        micro_batch(tiny_config(), 3), numbers, num_recycling_iterations=1
    )
    return torch.cat([*terms.terms.values(), terms.loss[None]]), step.buffer.gradients, reached


def assert_same_gradients(step, expected_step):
    """Compare terms, and the gradient relative to its norm."""
    found, expected = gradients_of(step), gradients_of(expected_step)
    torch.testing.assert_close(found[0], expected[0], rtol=TOLERANCE, atol=0.0)
    assert (found[1] - expected[1]).norm() <= TOLERANCE * expected[1].norm()
    assert found[2] == expected[2]
    assert list(step.model.state_dict()) == list(expected_step.model.state_dict())


@pytest.mark.parametrize("part", COMPILED_PARTS)
def test_a_compiled_part_gives_the_losses_and_gradients_of_the_eager_step(part):
    backend = CountingBackend()
    assert_same_gradients(step_with([part], backend), new_step(tiny_config()))
    assert backend.num_graphs > 0


@pytest.mark.compiler
def test_inductor_gives_the_losses_and_gradients_of_the_eager_step():
    """One part only: the C++ compiler takes several seconds for each graph."""
    config = tiny_config(compiled_parts=("heads",))
    assert_same_gradients(new_step(config), new_step(tiny_config()))


def test_nothing_is_compiled_after_the_warm_up_of_graphs():
    """A compilation during a capture would fail."""
    backend, config = CountingBackend(), tiny_config()
    step = step_with(["losses", "heads"], backend)
    graphs = StepGraphs(step, FakeRecorder(), micro_batch=micro_batch(config, 99))
    before = step.buffer.values.clone()
    for number in (1, 0):
        graphs.warm_up_run(number)
    num_graphs = backend.num_graphs
    assert num_graphs > 0
    for number in (1, 0):
        graphs.record(number)
    for number, iterations in enumerate((1, 0, 1), start=1):
        graphs.run(
            [micro_batch(config, number)],
            step=number,
            learning_rate=1e-3,
            num_recycling_iterations=iterations,
        ).read()
    assert backend.num_graphs == num_graphs
    assert not torch.equal(before, step.buffer.values)
