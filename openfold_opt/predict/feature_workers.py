"""Prepare the features of the next chains in worker processes while the model predicts.

Every worker prepares one job and then waits until its result is used, so at most one finished or
half-finished job per worker is in memory. A worker that dies is named in the failure of its job,
and another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import numpy as np

from openfold_opt.loader.batch import Delivery
from openfold_opt.loader.main_module import check_main_module
from openfold_opt.loader.socket_folder import use_short_socket_folder
from openfold_opt.loader.worker import Failure, Worker, attempt

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainInput, FeatureSettings, PreparedChain

START_METHOD = "spawn"


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureJob:
    """The features of one chain for one or several sets of weights with the same settings."""

    chain: ChainInput
    settings: FeatureSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureTask:
    """The work of a worker process (loader/worker.py). A position is the index of a job."""

    jobs: tuple[FeatureJob, ...]
    prepare: Callable[[ChainInput, FeatureSettings], PreparedChain]
    """A function of a module, because it is sent to the workers by its name."""

    def __call__(self, position: int) -> tuple[object, dict[str, np.ndarray]]:
        """Return the prepared chain of a job without its arrays, and the arrays."""
        job = self.jobs[position]
        prepared = self.prepare(job.chain, job.settings)
        return replace(prepared, wire={}), dict(prepared.wire)

    def describe(self, position: int) -> str:
        """Return the name of the chain of a job."""
        return self.jobs[position].chain.name


class FeatureQueue:
    """Delivers the features of jobs in their order. Close it, or use it as a context manager."""

    def __init__(self, task: FeatureTask, *, num_workers: int) -> None:
        """Start the workers. num_workers: 0 prepares every job when it is requested."""
        self._task = task
        self._next_job = 0
        self._ready: dict[int, PreparedChain | Failure] = {}
        self._workers: list[Worker] = []
        if num_workers:
            check_main_module()
            use_short_socket_folder()
        for _ in range(min(num_workers, len(task.jobs))):
            self._workers.append(self._start_worker())

    def __enter__(self) -> FeatureQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, position: int) -> PreparedChain | Failure:
        """Return the features of a job, or why they could not be prepared.

        Positions must be requested in increasing order; jobs that are left out are dropped.
        """
        if not self._workers:
            return self._open(attempt(self._task, position))
        self._ready = {p: result for p, result in self._ready.items() if p >= position}
        self._next_job = max(self._next_job, position)
        while position not in self._ready:
            self._assign()
            self._receive()
        result = self._ready.pop(position)
        self._assign()
        return result

    def close(self) -> None:
        """Kill the workers. Safe to call twice."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _start_worker(self) -> Worker:
        return Worker.start(self._task, start_method=START_METHOD, name="features")

    def _assign(self) -> None:
        """Give jobs to idle workers, as long as few results wait."""
        for worker in self._workers:
            num_ahead = len(self._ready) + sum(w.position is not None for w in self._workers)
            has_job = self._next_job < len(self._task.jobs)
            if worker.position is None and has_job and num_ahead < len(self._workers):
                worker.request(self._next_job)
                self._next_job += 1

    def _receive(self) -> None:
        """Wait for at least one worker, and keep its result."""
        busy = {worker.channel: worker for worker in self._workers if worker.position is not None}
        for channel in wait(list(busy)):
            worker = busy[channel]
            position = worker.position
            assert position is not None
            delivery = worker.receive()
            if delivery is None:
                reason = worker.describe_exit()
                self._workers[self._workers.index(worker)] = self._start_worker()
                worker.kill()
                delivery = Failure(reason=f"the {reason} while it prepared the features")
            self._ready[position] = self._open(delivery)

    def _open(self, delivery: Delivery | Failure) -> PreparedChain | Failure:
        if isinstance(delivery, Failure):
            return delivery
        return replace(delivery.description, wire=delivery.arrays)
