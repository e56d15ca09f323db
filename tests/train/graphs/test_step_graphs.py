"""Replayed steps against eager ones. Without a GPU, two substitutes for CUDA graphs are used."""

import dataclasses

import pytest
import torch

from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_plans
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.graphs.evaluation_graphs import EvaluationGraphs
from openfold_opt.train.graphs.recorder import CudaRecorder
from openfold_opt.train.optim.lr_schedule import learning_rate
from tests.support.devices import DEVICES
from tests.support.operator_recorder import OperatorRecorder
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import FakeRecorder, kernels_for, micro_batch, new_graphs, new_step

NUM_ITERATIONS = (1, 0, 1)
"""Recycling iterations of three steps."""


def run(runner, config, device="cpu"):
    """Return the metrics of three steps on different samples."""
    metrics = []
    for number, iterations in enumerate(NUM_ITERATIONS, start=1):
        batches = [
            micro_batch(config, 10 * number + micro, num_passes=iterations + 1, device=device)
            for micro in range(config.accumulation)
        ]
        result = runner.run(
            iter(batches),
            step=number,
            learning_rate=learning_rate(config.schedule, number),
            num_recycling_iterations=iterations,
        )
        assert result.sample_ids == tuple(
            sample_id for batch in batches for sample_id in batch.sample_ids
        )
        metrics.append((result.read(), result.local_terms.clone()))
    return metrics


def recorder_for(device):
    return CudaRecorder(torch.device(device)) if device == "cuda" else OperatorRecorder()


def assert_equal(found, expected, device="cpu"):
    """Compare metrics and terms of steps, bit for bit on a CPU.

    On a GPU, sums by atomic operations have no fixed order, so even two eager runs differ.
    """
    for (ours, our_terms), (theirs, their_terms) in zip(found, expected, strict=True):
        if device == "cuda":
            assert ours.is_applied == theirs.is_applied
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-3, nan_ok=True)
            assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-2, nan_ok=True)
            torch.testing.assert_close(our_terms, their_terms, rtol=1e-2, atol=1e-3, equal_nan=True)
            continue
        # Compare text, in which NaN equals NaN.
        assert str(ours) == str(theirs)
        assert torch.equal(our_terms.nan_to_num(7e7), their_terms.nan_to_num(7e7))


def assert_same_state(found, expected):
    """Compare weights, moments, average and counts bit for bit; on a GPU, to 1 % of the norm."""
    for name, value in vars(expected.weight_state()).items():
        if value is None:
            continue
        ours = getattr(found.weight_state(), name)
        if value.device.type == "cpu":
            assert torch.equal(value, ours), name
        else:
            error = torch.linalg.vector_norm((ours - value).double())
            assert error <= 1e-2 * torch.linalg.vector_norm(value.double()), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("accumulation", "precision"), [(1, "fp32"), (2, "bf16")])
def test_replays_equal_eager_steps(accumulation, precision, device):
    schedule = dataclasses.replace(tiny_config().schedule, warmup_steps=4)
    config = tiny_config(
        accumulation=accumulation,
        precision=precision,
        schedule=schedule,
        device=device,
        kernels=kernels_for(device),
    )
    recorder = recorder_for(device)
    graphs, step = new_graphs(config, recorder, device)
    eager = new_step(config, device)
    assert_equal(run(graphs, config, device), run(eager, config, device), device)
    if device == "cpu":
        # With one micro-batch, the update is part of its graph.
        assert recorder.num_replays == len(NUM_ITERATIONS) * (
            1 if accumulation == 1 else accumulation + 1
        )
        assert len(recorder.captures) == (2 if accumulation == 1 else 3)
    assert graphs.num_eager_steps == 0
    graphs.release()
    assert_same_state(step, eager)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_evaluation_graphs_between_steps_change_nothing(accumulation, device):
    """All graphs share one pool; a replay overwrites what the others left there."""
    config = tiny_config(accumulation=accumulation, device=device, kernels=kernels_for(device))
    recorder = recorder_for(device)
    graphs, step = new_graphs(config, recorder, device)
    _, plan = build_plans(config, ParallelContext.alone(), torch.device(device))
    evaluator = Evaluator(step.model, step.weight_average.parameters(), plan=plan)
    evaluation = EvaluationGraphs(evaluator.compute, recorder)
    chain = micro_batch(config, 7, device=device).features
    assert list(evaluation.warm_up_run([chain])) == [config.data.crop_size]
    evaluation.record()

    class WithEvaluations:
        """Evaluates before each step, after its first micro-batch and after its last one."""

        def run(self, batches, **numbers):
            def evaluated():
                for batch in batches:
                    assert torch.isfinite(evaluation.score(chain)).all()
                    yield batch

            result = graphs.run(evaluated(), **numbers)
            evaluation.score(chain)
            return result

    eager = new_step(config, device)
    found, expected = run(WithEvaluations(), config, device), run(eager, config, device)
    assert_equal(found, expected, device)
    assert_same_state(step, eager)
    graphs.release()
    evaluation.release()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_that_is_not_finite_is_skipped_as_in_eager_steps(accumulation, device):
    config = tiny_config(accumulation=accumulation, device=device, kernels=kernels_for(device))
    graphs, step = new_graphs(config, recorder_for(device), device)
    eager = new_step(config, device)
    for number in (1, 2, 3):
        seeds = [10 * number + micro for micro in range(accumulation)]
        batches = [micro_batch(config, seed, device=device) for seed in seeds]
        if number == 2:
            batches[-1].features.chi_angles_sin_cos[:] = torch.nan
        found, expected = (
            runner.run(
                iter(batches), step=number, learning_rate=LEARNING_RATE, num_recycling_iterations=1
            )
            for runner in (graphs, eager)
        )
        assert found.read().is_applied == (number != 2)
        pairs = [[(result.read(), result.local_terms)] for result in (found, expected)]
        assert_equal(*pairs, device)
        assert_same_state(step, eager)
    graphs.release()


def test_micro_batches_are_requested_one_at_a_time():
    config, recorder = tiny_config(accumulation=3), FakeRecorder()
    graphs, _ = new_graphs(config, recorder)
    replays = []

    def batches():
        for number in range(3):
            replays.append(recorder.num_replays)
            yield micro_batch(config, number)

    graphs.run(batches(), step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=0)
    assert replays == [0, 1, 2] and recorder.num_replays == 4


def test_a_step_with_too_few_micro_batches_is_refused_before_weights_change():
    config = tiny_config(accumulation=2)
    graphs, step = new_graphs(config, FakeRecorder())
    before = step.buffer.values.clone()
    with pytest.raises(ValueError, match="step 5 got 1 micro-batches, expected 2"):
        graphs.run(
            [micro_batch(config, 1)],
            step=5,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        )
    assert torch.equal(step.buffer.values, before)


def test_dropout_differs_from_step_to_step():
    config = tiny_config()
    graphs, _ = new_graphs(config, FakeRecorder())
    batch = micro_batch(config, 1)
    losses = [
        graphs.run([batch], step=step, learning_rate=0.0, num_recycling_iterations=0).read().loss
        for step in (1, 2, 3, 1)
    ]
    assert len(set(losses)) == 3 and losses[0] == losses[3]


def test_a_micro_batch_that_fits_no_graph_runs_eagerly_and_is_counted():
    config = tiny_config()
    longer = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_size=9))
    recorder = FakeRecorder()
    graphs, _ = new_graphs(config, recorder)
    eager = new_step(config)
    for step, (which, iterations) in enumerate([(longer, 0), (config, 0), (longer, 1)], start=1):
        batch = micro_batch(which, step)
        found = graphs.run(
            [batch], step=step, learning_rate=LEARNING_RATE, num_recycling_iterations=iterations
        ).read()
        assert (
            found
            == eager.run(
                [batch], step=step, learning_rate=LEARNING_RATE, num_recycling_iterations=iterations
            ).read()
        )
    assert graphs.num_eager_steps == 2 and recorder.num_replays == 1


def test_one_of_two_micro_batches_may_fit_no_graph():
    config = tiny_config(accumulation=2)
    longer = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_size=9))
    recorder = FakeRecorder()
    graphs, step = new_graphs(config, recorder)
    eager = new_step(config)
    for number, kinds in enumerate([(longer, config), (config, longer), (config, config)], start=1):
        batches = [micro_batch(kind, 10 * number + micro) for micro, kind in enumerate(kinds)]
        results = [
            runner.run(
                batches, step=number, learning_rate=LEARNING_RATE, num_recycling_iterations=1
            )
            for runner in (graphs, eager)
        ]
        assert_equal(*([(result.read(), result.local_terms)] for result in results))
    assert_same_state(step, eager)
    # The update is replayed in each step.
    assert graphs.num_eager_steps == 2 and recorder.num_replays == 1 + 1 + 2 + 3


def test_released_step_graphs_are_not_replayed():
    config, recorder = tiny_config(), FakeRecorder()
    graphs, _ = new_graphs(config, recorder)
    graphs.release()
    assert (
        graphs.run(
            [micro_batch(config, 1)],
            step=1,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        )
        .read()
        .is_applied
    )
    assert recorder.num_replays == 0 and graphs.num_eager_steps == 1


def test_metrics_read_late_are_those_of_their_step():
    config = tiny_config()
    graphs, _ = new_graphs(config, FakeRecorder())
    eager = new_step(config)
    batches = [micro_batch(config, seed) for seed in (1, 2)]
    late = [
        graphs.run([batch], step=step, learning_rate=LEARNING_RATE, num_recycling_iterations=0)
        for step, batch in enumerate(batches, start=1)
    ]
    now = [
        eager.run([batch], step=step, learning_rate=LEARNING_RATE, num_recycling_iterations=0)
        for step, batch in enumerate(batches, start=1)
    ]
    for ours, theirs in zip(late, now):
        assert torch.equal(ours.local_terms, theirs.local_terms) and ours.read() == theirs.read()
