"""Simulated loaders whose sample times are drawn from a measured distribution."""

from __future__ import annotations

import numpy as np

from benchmark.plan.loader_simulation import LoaderSetting, LoaderWaits, simulate_loader
from benchmark.plan.preparation_times import PreparationTimes


def busy_share(setting: LoaderSetting, times: PreparationTimes) -> float:
    """Return the share of the time that workers prepare samples if training never waits."""
    samples = setting.accumulation * setting.local_batch_size
    return samples * times.mean_seconds / (setting.num_workers * setting.step_seconds)


def plan_loader(setting: LoaderSetting, times: PreparationTimes, *, seed: int = 0) -> LoaderWaits:
    """Simulate a training whose samples take times drawn from a distribution.

    Loaders with the same number of groups and the same seed have the same samples.
    """
    generator = np.random.default_rng(seed)

    def draw(groups: np.ndarray, position: int) -> np.ndarray:
        return times.draw(generator, (len(groups), setting.local_batch_size)).sum(axis=1)

    return simulate_loader(setting, draw)
