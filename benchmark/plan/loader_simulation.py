"""The loader as a discrete-event simulation: how long training waits for its samples.

Each group of ranks that share a sample (dynamic axial parallelism) has one loader. Its workers
prepare positions of the stream in order, each on the next free worker; at most `capacity` positions
are in preparation or prepared. The lowest prepared position is delivered, within the reorder window
(openfold_opt.loader.reorder_window). A staging thread copies batches to the device ahead of their
use. A step uses `accumulation` positions, and ends on all groups when it ends on the slowest,
because gradients are summed over all of them.

Positions are assigned in order to equal workers. So the time at which a position is prepared is
known as soon as it may be assigned, which is when an earlier position leaves the loader: there is
no event queue, only one update per delivery, for all groups at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Seconds = Callable[[np.ndarray, int], np.ndarray]
"""(groups, position) -> seconds that a worker of each of the groups takes for the position."""


@dataclass(frozen=True, kw_only=True)
class LoaderSetting:
    """What is simulated. The names are those of LoaderConfig where it has the field."""

    step_seconds: float
    """Duration of a step without any wait for data."""
    num_steps: int
    num_workers: int
    """Worker processes of each loader."""
    prefetch_per_worker: int
    window: int
    """Positions by which a batch may be delivered early; 0 delivers in order."""
    num_groups: int = 1
    """Groups of ranks with one loader each: data-parallel ranks."""
    accumulation: int = 1
    """Micro-batches of a step, one position each."""
    local_batch_size: int = 1
    """Samples of a micro-batch, which one worker prepares."""
    staging_seconds: float = 0.0
    """Time to copy a micro-batch to the device and decode it there."""
    prefetch_depth: int = 0
    """Batches that the staging thread is ahead; 0: the training thread copies them itself."""

    def __post_init__(self) -> None:
        minima = {
            "num_steps": 1,
            "num_workers": 1,
            "prefetch_per_worker": 1,
            "window": 0,
            "num_groups": 1,
            "accumulation": 1,
            "local_batch_size": 1,
            "staging_seconds": 0,
            "prefetch_depth": 0,
        }
        for name, minimum in minima.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {minimum}")
        if self.step_seconds <= 0:
            raise ValueError(f"step_seconds is {self.step_seconds}, expected more than 0")

    @property
    def capacity(self) -> int:
        """Largest number of positions of a loader that are in preparation or prepared."""
        return self.num_workers * self.prefetch_per_worker


@dataclass(frozen=True, kw_only=True)
class LoaderWaits:
    """Waiting times of a simulated training, from the first step to the end of the last."""

    num_micro_steps: int
    total_seconds: float
    lost_seconds: float
    """Time by which all steps together are longer than without waits."""
    mean_wait_seconds: float
    """Mean over the groups of the time that each waits for its own samples."""
    longest_wait_seconds: float
    """Longest wait for a micro-batch on any group."""
    median_step_seconds: float
    largest_step_seconds: float
    largest_reorder_distance: int
    """Positions by which a micro-batch was delivered before the first missing one."""

    @property
    def lost_share(self) -> float:
        """Share of the time that training waits for the slowest loader of each step."""
        return self.lost_seconds / self.total_seconds

    @property
    def wait_of_micro_step(self) -> float:
        """Mean seconds by which a micro-step is longer than without waits."""
        return self.lost_seconds / self.num_micro_steps

    @property
    def own_share(self) -> float:
        """Share of the time that a group waits for its own loader, on average."""
        return self.mean_wait_seconds / self.total_seconds


def simulate_loader(setting: LoaderSetting, seconds: Seconds) -> LoaderWaits:
    """Simulate the steps of a training. The clock starts when all groups have their first batch."""
    loaders = _Loaders(setting, seconds)
    compute = setting.step_seconds / setting.accumulation
    start = float(loaders.take(np.zeros(setting.num_groups)).max())
    now, waited, longest = start, np.zeros(setting.num_groups), 0.0
    step_seconds = np.zeros(setting.num_steps)
    for step in range(setting.num_steps):
        ends = np.full(setting.num_groups, now)
        for micro in range(setting.accumulation):
            if step or micro:
                taken = loaders.take(ends)
                waited += taken - ends
                longest = max(longest, float((taken - ends).max()))
                ends = taken
            ends = ends + compute
        step_seconds[step] = ends.max() - now
        now = float(ends.max())
    total = now - start
    return LoaderWaits(
        num_micro_steps=setting.num_steps * setting.accumulation,
        total_seconds=total,
        lost_seconds=max(total - setting.num_steps * setting.step_seconds, 0.0),
        mean_wait_seconds=float(waited.mean()),
        longest_wait_seconds=longest,
        median_step_seconds=float(np.median(step_seconds)),
        largest_step_seconds=float(step_seconds.max()),
        largest_reorder_distance=loaders.largest_distance,
    )


class _Loaders:
    """The loaders of all groups, with their staging threads."""

    def __init__(self, setting: LoaderSetting, seconds: Seconds) -> None:
        groups, capacity = setting.num_groups, setting.capacity
        self.largest_distance = 0
        self._setting, self._seconds = setting, seconds
        self._groups = np.arange(groups)
        self._worker_free = np.zeros((groups, setting.num_workers))
        # Positions that are in preparation or prepared, and when they are prepared. A delivered one
        # is replaced by the next one of the stream.
        self._positions = np.tile(np.arange(capacity), (groups, 1))
        self._prepared = np.empty((groups, capacity))
        for slot in range(capacity):
            self._prepared[:, slot] = self._assign(slot, allowed=np.zeros(groups))
        self._next = capacity
        self._staged = _Staging(groups, setting.prefetch_depth)

    def take(self, requested: np.ndarray) -> np.ndarray:
        """Return when each group has its next micro-batch. requested: [num_groups], seconds."""
        staging = self._setting.staging_seconds
        if self._setting.prefetch_depth == 0:
            return self._deliver(requested) + staging
        finished = self._deliver(self._staged.requested()) + staging
        taken = np.maximum(requested, finished)
        self._staged.add(finished, taken)
        return taken

    def _deliver(self, requested: np.ndarray) -> np.ndarray:
        """Return when the loaders deliver. requested: [num_groups], seconds."""
        low = self._positions.min(axis=1)
        is_eligible = self._positions <= (low + self._setting.window)[:, None]
        prepared = np.where(is_eligible, self._prepared, np.inf)
        delivered = np.maximum(requested, prepared.min(axis=1))
        is_ready = prepared <= delivered[:, None]
        slots = np.where(is_ready, self._positions, self._next).argmin(axis=1)
        chosen = self._positions[self._groups, slots]
        self.largest_distance = max(self.largest_distance, int((chosen - low).max()))
        self._positions[self._groups, slots] = self._next
        self._prepared[self._groups, slots] = self._assign(self._next, allowed=delivered)
        self._next += 1
        return delivered

    def _assign(self, position: int, *, allowed: np.ndarray) -> np.ndarray:
        """Assign a position to the next free worker of each group; return when it is prepared."""
        worker = self._worker_free.argmin(axis=1)
        started = np.maximum(allowed, self._worker_free[self._groups, worker])
        prepared = started + self._seconds(self._groups, position)
        self._worker_free[self._groups, worker] = prepared
        return prepared


class _Staging:
    """The queue of a staging thread: a batch waits until the one `depth` before it is taken."""

    def __init__(self, num_groups: int, depth: int) -> None:
        self._taken = [np.full(num_groups, -np.inf)] * depth
        self._put = np.zeros(num_groups)

    def requested(self) -> np.ndarray:
        """Return when the thread requests its next batch from the loader."""
        return self._put

    def add(self, finished: np.ndarray, taken: np.ndarray) -> None:
        """Add a batch that is copied at `finished` and taken by the training thread at `taken`."""
        self._put = np.maximum(finished, self._taken[0])
        self._taken = [*self._taken[1:], taken]
