"""The simulated loader waits as long as the measured one, and delivers in the same order."""

import json
import pathlib

import numpy as np
import pytest

from benchmark.plan.loader_plan import busy_share, plan_loader
from benchmark.plan.loader_simulation import LoaderSetting, simulate_loader
from benchmark.plan.preparation_times import PreparationTimes, preparation_times
from openfold_opt.loader.reorder_window import ReorderWindow

MEASURED = pathlib.Path(__file__).resolve().parents[3] / "results" / "measured"
RECORD = json.loads((MEASURED / "2026-11-21_perf_loader.json").read_text())["figures"]
TIMES = MEASURED / "2026-11-21_perf_data_real.json"


def replayed(times, *, seed=0):
    """Return the times that `perf loader` draws for each position, for all groups the same."""

    def seconds(groups, position):
        drawn = int(np.random.default_rng([seed, position]).integers(len(times)))
        return np.full(len(groups), times[drawn])

    return seconds


def setting_of(**changes):
    fields = {
        "step_seconds": 1.0,
        "num_steps": 50,
        "num_workers": 2,
        "prefetch_per_worker": 2,
        "window": 0,
    }
    return LoaderSetting(**{**fields, **changes})


@pytest.mark.parametrize("name", ["in order", "window 256"])
def test_measured_waiting_is_reproduced(name):
    """The same sequence of times as in the record, with the same eight workers."""
    measured = RECORD["loaders"][name]
    # The record draws from the chains in the order of its file.
    chains = json.loads(TIMES.read_text())["figures"]["samples"]["training"]
    times = [
        RECORD["scale"] * float(np.median(chain["reference"]))
        for chain in chains.values()
        if "reference" in chain
    ]
    setting = LoaderSetting(
        step_seconds=RECORD["step_seconds"],
        num_steps=RECORD["steps"],
        num_workers=RECORD["workers"],
        prefetch_per_worker=RECORD["prefetch_per_worker"],
        window=measured["window"],
    )
    waits = simulate_loader(setting, replayed(times))
    assert waits.lost_share == pytest.approx(measured["stall_share"], abs=0.03)
    assert waits.total_seconds == pytest.approx(measured["seconds"], rel=0.03)
    assert waits.longest_wait_seconds == pytest.approx(measured["longest_wait_seconds"], abs=0.05)
    distance = measured["largest_reorder_distance"]
    assert waits.largest_reorder_distance == pytest.approx(distance, abs=3)


def event_loop(setting, seconds):
    """Simulate one loader event by event, with the loader's own window; return the end."""
    window = ReorderWindow(window=setting.window, capacity=setting.capacity)
    free = [0.0] * setting.num_workers
    prepared = {}
    taken, ready_at, now = [], 0.0, 0.0

    def assign(at):
        while (position := window.next_to_prepare()) is not None:
            worker = free.index(min(free))
            free[worker] = max(at, free[worker]) + seconds(np.arange(1), position)[0]
            prepared[position] = free[worker]

    assign(0.0)
    for number in range(setting.num_steps * setting.accumulation):
        requested = now
        # An event is a position that becomes ready.
        for event in [requested, *sorted(t for t in prepared.values() if t > requested)]:
            position = window.choose(p for p, t in prepared.items() if t <= event)
            if position is not None:
                break
        ready_at = max(requested, event)
        del prepared[position]
        window.complete(position)
        taken.append(position)
        assign(ready_at)
        if number == 0:
            start = ready_at
        now = ready_at + setting.step_seconds / setting.accumulation
    return now - start, taken


@pytest.mark.parametrize("window", [0, 1, 3, 50])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_it_agrees_with_an_event_loop(window, accumulation):
    setting = setting_of(window=window, accumulation=accumulation, num_workers=3, num_steps=80)
    times = np.random.default_rng(1).lognormal(-0.5, 1.5, 40)
    seconds = replayed(times, seed=7)
    expected, _ = event_loop(setting, seconds)
    waits = simulate_loader(setting, seconds)
    assert waits.total_seconds == pytest.approx(expected)
    assert waits.largest_reorder_distance <= window


def test_a_step_ends_with_the_slowest_group():
    def seconds(groups, position):
        # One group has a slow sample in the middle.
        return np.where((groups == 1) & (position == 20), 30.0, 0.5)

    alone = simulate_loader(setting_of(), seconds)
    both = simulate_loader(setting_of(num_groups=2), seconds)
    assert alone.lost_seconds == pytest.approx(0, abs=1e-9)
    assert both.lost_seconds == pytest.approx(both.longest_wait_seconds)
    assert both.mean_wait_seconds == pytest.approx(both.lost_seconds / 2)
    assert both.largest_step_seconds == pytest.approx(1 + both.lost_seconds)


def test_samples_of_a_micro_batch_are_prepared_one_after_another():
    times = PreparationTimes(source="test", seconds=(0.5,))
    single = setting_of(num_workers=1, step_seconds=0.9)
    assert plan_loader(single, times).lost_share == pytest.approx(0, abs=1e-9)
    double = setting_of(num_workers=1, step_seconds=0.9, local_batch_size=2)
    # A worker needs 1.0 s for each step of 0.9 s, and starts with a batch in advance.
    waits = plan_loader(double, times)
    assert busy_share(double, times) == pytest.approx(1 / 0.9)
    assert waits.median_step_seconds == pytest.approx(1.0)


def test_a_staging_thread_hides_the_copies_that_a_step_covers():
    times = PreparationTimes(source="test", seconds=(0.01,))
    direct = plan_loader(setting_of(staging_seconds=0.3), times)
    assert direct.lost_seconds == pytest.approx(49 * 0.3)
    two = plan_loader(setting_of(staging_seconds=0.3, accumulation=2), times)
    assert two.wait_of_micro_step == pytest.approx(99 * 0.3 / 100)
    staged = plan_loader(setting_of(staging_seconds=0.3, prefetch_depth=2), times)
    assert staged.lost_seconds == pytest.approx(0, abs=1e-9)
    # A thread that takes longer than a step delays every step by the difference.
    slow = plan_loader(setting_of(staging_seconds=1.5, prefetch_depth=2), times)
    assert slow.median_step_seconds == pytest.approx(1.5)


def test_thousands_of_groups_wait_longer_than_one():
    times = preparation_times(TIMES, side="reference")
    setting = {"num_workers": 8, "step_seconds": 0.05, "window": 64, "num_steps": 100}
    one, many = (
        plan_loader(setting_of(**setting, num_groups=groups), times) for groups in (1, 2048)
    )
    assert one.lost_share < many.lost_share
    assert many.own_share < many.lost_share


def test_a_lognormal_distribution_has_the_moments_of_the_logarithms():
    times = preparation_times(TIMES, side="ours", shape="lognormal")
    mean, deviation = times.log_moments()
    drawn = np.log(times.draw(np.random.default_rng(0), (20000,)))
    assert drawn.mean() == pytest.approx(mean, abs=0.05)
    assert drawn.std() == pytest.approx(deviation, rel=0.05)
    assert times.scaled(2.0).mean_seconds == pytest.approx(2 * times.mean_seconds)
    assert times.as_json()["chains"] == 88


@pytest.mark.parametrize("side", ["ours", "reference"])
def test_stored_times_are_those_of_their_source(side):
    stored = preparation_times(None, side=side)
    record = preparation_times(MEASURED / "2026-11-29_perf_data_real.json", side=side)
    assert stored.seconds == pytest.approx(record.seconds, abs=1e-6)
    assert "2026-11-29_perf_data_real.json" in stored.source


@pytest.mark.parametrize("change", [{"num_workers": 0}, {"window": -1}, {"step_seconds": 0.0}])
def test_invalid_settings_name_the_field(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        setting_of(**change)
