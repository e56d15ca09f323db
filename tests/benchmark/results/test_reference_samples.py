"""Samples of the reference convergence points are those that mlperf-logging's checker reads."""

from benchmark.results.reference_points import reference_points
from benchmark.results.reference_samples import reference_samples


def test_samples_are_those_of_the_checker():
    assert reference_samples() == {point.batch: point.samples for point in reference_points()}
    assert list(reference_samples()) == [128, 256]
