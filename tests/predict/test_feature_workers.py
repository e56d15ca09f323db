"""Features are prepared ahead in processes, in order; a process that dies fails only its job."""

import pytest

from openfold_opt.loader.worker import Failure
from openfold_opt.predict.feature_workers import FeatureJob, FeatureQueue, FeatureTask
from tests.support.fake_prediction import FakeChain, FakeSettings, prepare


def task_of(*names: str) -> FeatureTask:
    settings = FakeSettings()
    chains = [FakeChain(name=name, sequence="MKT" + "A" * i) for i, name in enumerate(names)]
    jobs = tuple(FeatureJob(chain=chain, settings=settings) for chain in chains)
    return FeatureTask(jobs=jobs, prepare=prepare)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_jobs_are_delivered_in_order_and_a_failure_is_one_of_them(num_workers):
    with FeatureQueue(task_of("a", "broken", "c", "d"), num_workers=num_workers) as queue:
        results = [queue.get(position) for position in (0, 1, 3)]
    assert [getattr(result, "name", None) for result in results] == ["a", None, "d"]
    assert results[0].num_alignment_rows == 7 and bytes(results[0].wire["aatype"]) == b"MKT"
    assert bytes(results[2].wire["aatype"]) == b"MKTAAA"
    assert isinstance(results[1], Failure)
    first_line = results[1].reason.splitlines()[0]
    assert first_line == "ValueError: the alignment of broken is cut short"


def test_a_worker_that_dies_is_named_and_replaced():
    with FeatureQueue(task_of("a", "killed", "c"), num_workers=1) as queue:
        results = [queue.get(position) for position in range(3)]
    assert results[0].name == "a" and results[2].name == "c"
    assert "died with exit code -9" in results[1].reason
    assert "while it prepared the features" in results[1].reason


def test_few_results_wait():
    queue = FeatureQueue(task_of(*"abcdefgh"), num_workers=2)
    try:
        queue.get(0)
        assert queue._next_job <= 3
    finally:
        queue.close()
        queue.close()
