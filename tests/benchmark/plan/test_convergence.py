"""Samples to a target, evaluation and the time of a run."""

import pytest

from benchmark.plan.convergence import (
    Evaluation,
    run_time,
    samples_to_080,
    samples_to_090,
)
from benchmark.results.reference_points import reference_mean


@pytest.mark.parametrize("batch", [128, 192, 256])
def test_samples_follow_the_reference_points(batch):
    samples = samples_to_080(batch)
    assert samples.mean == pytest.approx(reference_mean(batch), rel=1e-3)
    assert len(samples.runs) == 20 and samples.runs[0] < samples.mean < samples.runs[-1]
    assert not samples.is_extrapolated


def test_outside_of_the_points_is_marked():
    assert samples_to_080(64).is_extrapolated
    assert samples_to_080(64).mean == samples_to_080(128).mean
    assert samples_to_080(512).is_extrapolated
    assert samples_to_080(512).mean > samples_to_080(256).mean


def test_samples_to_090_are_those_of_the_two_trainings():
    assert samples_to_090(128).mean == 10.24e6
    assert samples_to_090(256).mean == 13.44e6


def test_evaluation_alternates_with_training():
    evaluation = Evaluation(every_steps=40, seconds=50, is_concurrent=False)
    time = run_time(samples=80 * 128, batch=128, step_seconds=2, evaluation=evaluation, start=10)
    assert (time.steps, time.evaluation, time.start) == (160, 100, 10)
    assert time.total == 270


def test_a_run_ends_with_an_evaluation():
    evaluation = Evaluation(every_steps=40, seconds=50, is_concurrent=False)
    time = run_time(samples=41 * 128, batch=128, step_seconds=2, evaluation=evaluation, start=0)
    assert time.steps == 160


def test_only_a_slow_concurrent_evaluation_makes_training_wait():
    times = [
        run_time(
            samples=40 * 10 * 128,
            batch=128,
            step_seconds=2,
            evaluation=Evaluation(
                every_steps=40, seconds=seconds, is_concurrent=True, snapshot_seconds=1
            ),
            start=0,
        ).evaluation
        for seconds in (50, 90)
    ]
    assert times == [9 * 1 + 50, 9 * (1 + 10) + 90]
