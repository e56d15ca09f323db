"""The sample stream of a phase: its samples are used completely, and none twice."""

import shutil

import pytest

from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.loader import TrainingLoader
from openfold_opt.loader.reorder_window import ReorderWindow
from openfold_opt.loader.sampler import (
    FIRST_RESERVE_SAMPLE,
    SampleStream,
    StreamOrigin,
    TrainingSampler,
)
from tests.loader.test_loader import CHAINS, SMALL

ORIGIN = StreamOrigin(steps_before=10, first_sample=100, num_steps=3)


@pytest.mark.parametrize(
    ("size", "local_batch_size", "accumulation"), [(1, 1, 8), (2, 2, 2), (4, 1, 2), (8, 1, 1)]
)
def test_a_phase_has_the_same_samples_on_any_number_of_ranks(size, local_batch_size, accumulation):
    by_step = {}
    for rank in range(size):
        stream = SampleStream(
            rank=rank,
            size=size,
            local_batch_size=local_batch_size,
            accumulation=accumulation,
            origin=ORIGIN,
        )
        for position in range(stream.num_positions):
            step, _ = stream.step_of(position)
            by_step.setdefault(step, []).extend(stream.sample_numbers(position))
    assert {step: sorted(numbers) for step, numbers in by_step.items()} == {
        11: list(range(100, 108)),
        12: list(range(108, 116)),
        13: list(range(116, 124)),
    }


def test_positions_after_the_end_have_samples_of_no_phase():
    stream = SampleStream(accumulation=2, origin=ORIGIN)
    assert stream.sample_numbers(6) == [FIRST_RESERVE_SAMPLE + 106]
    endless = SampleStream(accumulation=2)
    assert endless.num_positions is None and endless.sample_numbers(10**6) == [10**6]


def test_a_dropped_position_extends_a_finite_stream():
    window = ReorderWindow(window=2, capacity=10, end=3)
    assert [window.next_to_prepare() for _ in range(4)] == [0, 1, 2, None]
    window.drop(1)
    assert window.next_to_prepare() == 3 and window.next_to_prepare() is None
    for position in (0, 2):
        window.complete(position)
    assert not window.is_exhausted
    window.complete(3)
    assert window.is_exhausted


@pytest.mark.parametrize(("num_workers", "window"), [(0, 0), (2, 0), (3, 5)])
def test_the_window_is_drained_at_the_end_of_a_phase(quirks_dir, num_workers, window):
    sampler = TrainingSampler(CHAINS, [1.0, 2.0], seed=9)
    found = []
    for rank in range(2):
        stream = SampleStream(rank=rank, size=2, accumulation=2, origin=ORIGIN)
        config = LoaderConfig(num_workers=num_workers, window=window, prefetch_per_worker=3)
        with TrainingLoader(
            quirks_dir, sampler, data=SMALL, loader=config, stream=stream, first_step=11
        ) as batches:
            taken = list(batches)
        assert [batch.step for batch in taken] == [11, 11, 12, 12, 13, 13]
        found += [batch.sample_seeds[0] for batch in taken]
    assert sorted(found) == sorted(sampler.sample(number).seed for number in range(100, 112))


@pytest.mark.parametrize("window", [0, 4])
def test_skipped_samples_are_replaced_also_in_a_resumed_phase(quirks_dir, tmp_path, window):
    data_dir = tmp_path / "data"
    shutil.copytree(quirks_dir, data_dir)
    sampler = TrainingSampler((*CHAINS, "9zzz_A"), [1.0, 1.0, 1.0], seed=2)
    origin = StreamOrigin(steps_before=0, first_sample=0, num_steps=6)
    stream = SampleStream(accumulation=2, origin=origin)
    missing = [number for number in range(12) if sampler.sample(number).chain_id == "9zzz_A"]
    assert missing and missing[0] < 6
    config = LoaderConfig(num_workers=2, window=window, error_budget=100, max_attempts=1)
    options = {"data": SMALL, "loader": config, "stream": stream, "report": lambda message: None}

    def take(loader, number):
        batches = [next(loader) for _ in range(number)]
        for batch in batches:
            loader.mark_consumed(batch.position)
        return [batch.sample_seeds[0] for batch in batches]

    with TrainingLoader(data_dir, sampler, **options) as loader:
        found = take(loader, 6)
        state = loader.state()
    with TrainingLoader(data_dir, sampler, **options, first_step=4, start=state) as loader:
        found += take(loader, 6)
        with pytest.raises(StopIteration):
            next(loader)
    planned = {sampler.sample(number).seed for number in set(range(12)) - set(missing)}
    assert planned < set(found) and len(set(found)) == len(found) == 12
