"""Graphs of a step on two ranks: results of eager steps, and when gradients are reduced."""

import pytest
import torch

from openfold_opt.losses.config import LossConfig
from openfold_opt.parallel.context import ParallelConfig, ParallelContext
from openfold_opt.train.build_run import names_without_gradient
from tests.support.gloo_ranks import run_on_ranks
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import (
    FakeRecorder,
    micro_batch,
    new_graphs,
    new_step,
    record_gradients,
)


def traced_steps(context: ParallelContext) -> dict[int, dict]:
    """Return for each accumulation the trace of two steps."""
    return {accumulation: trace(context, accumulation) for accumulation in (1, 2)}


def trace(context: ParallelContext, accumulation: int) -> dict:
    """Run two replayed and two eager steps. Return their metrics and the last step's events."""
    # Several buckets, so that the first one can be sent before the backward pass ends.
    parallel = ParallelConfig(gradient_bucket_bytes=4096)
    config = tiny_config(accumulation=accumulation, parallel=parallel)
    graphs, ours = new_graphs(config, FakeRecorder(), context=context)
    theirs = new_step(config, context=context)
    events: list[str] = []
    watch(ours, events)
    metrics, events_of_step = [], []
    for number in (1, 2):
        seeds = [100 * number + 10 * micro + context.data.rank for micro in range(accumulation)]
        del events[:]
        batches = [micro_batch(config, seed) for seed in seeds]
        results = [
            runner.run(
                batches, step=number, learning_rate=LEARNING_RATE, num_recycling_iterations=1
            )
            for runner in (graphs, theirs)
        ]
        # Only the step of the graphs records events.
        events_of_step = list(events)
        metrics.append([result.read() for result in results])
    states = [vars(step.weight_state()).values() for step in (ours, theirs)]
    is_same = all(a is b is None or torch.equal(a, b) for a, b in zip(*states))
    return {
        "same": is_same,
        "metrics": metrics,
        "events": events_of_step,
        "values": ours.buffer.values.tolist(),
    }


def watch(step, events: list[str]) -> None:
    """Record when a backward pass ends, buckets are sent, and the update begins."""
    reducer = step._reducer
    backward, update, launch = step.forward_backward, step.update, reducer._launch

    def recorded(call, before=(), after=()):
        def run(*args, **kwargs):
            events.extend(before)
            result = call(*args, **kwargs)
            events.extend(after)
            return result

        return run

    step.forward_backward = recorded(backward, after=["backward ends"])
    step.update = recorded(update, before=["update"])
    reducer._launch = recorded(launch, before=["send"])


@pytest.fixture(scope="module")
def ranks():
    return run_on_ranks(traced_steps, 2)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_replayed_steps_of_two_ranks_equal_eager_ones(ranks, accumulation):
    first, second = (traces[accumulation] for traces in ranks)
    assert first["same"] and second["same"]
    assert first["values"] == second["values"]
    for ours, theirs in first["metrics"] + second["metrics"]:
        assert ours == theirs and ours.is_applied


def test_gradients_of_a_single_micro_batch_are_reduced_during_its_backward_pass(ranks):
    events = ranks[0][1]["events"]
    assert events.count("backward ends") == events.count("update") == 1
    assert events.index("send") < events.index("backward ends")


def test_gradients_of_several_micro_batches_are_reduced_in_the_graph_of_the_update(ranks):
    events = ranks[0][2]["events"]
    assert events[:3] == ["backward ends", "backward ends", "update"]
    assert set(events[3:]) == {"send"} and len(events) > 5


@pytest.mark.parametrize("loss", [LossConfig.initial_training(), LossConfig.finetuning()])
@pytest.mark.parametrize("num_recycling_iterations", [0, 1])
def test_exactly_the_parameters_of_unused_heads_get_no_gradient(loss, num_recycling_iterations):
    """The first bucket has these parameters, and it must not wait for their gradients."""
    config = tiny_config(loss=loss)
    step = new_step(config)
    with_gradient = record_gradients(step)
    step.run(
        [micro_batch(config, 1)],
        step=1,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=num_recycling_iterations,
    )
    without = {name for name, _ in step.model.named_parameters()} - with_gradient
    assert without == set(names_without_gradient(step.model, loss))
