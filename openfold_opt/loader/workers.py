"""Batches prepared ahead by worker processes that may die, hang or fail, delivered within a reorder window.

A thread of the consuming process looks after the workers: it hands out one position at a time, takes what comes back, replaces
workers that die or run past the deadline, and has a failed batch prepared again, by whichever worker is free. What fails every time
is reported, counted, and left out while the error budget lasts; one failure more ends the stream with a LoaderError. Whatever happens
to the workers, the consumer gets a batch or an error: every position handed out has a deadline.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.reorder_window import ReorderWindow, StreamState
from openfold_opt.loader.retry_policy import LoaderError, RetryPolicy, explain
from openfold_opt.loader.supervisor import SharedState, Supervisor
from openfold_opt.loader.worker import Failure, Prepared, Task, attempt


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A batch as the consumer gets it, with what the loader knows of its state."""

    position: int
    description: Any
    arrays: dict[str, np.ndarray]
    preparation_seconds: float
    queue_depth: int
    """Prepared batches that are left."""
    reorder_distance: int
    """How many places it was ahead of the first batch that is missing; 0 to window."""
    skipped: tuple[int, ...] = ()
    """Positions given up since the delivery before."""


class WorkerStream:
    """Iterates the results of `task` over a stream of positions, each exactly once.

    With num_workers 0 the task runs in this process, in order. Use as a context manager, or call close(), which leaves no process
    behind.

    Args:
        task: prepares one position.
        config: workers, window, deadlines, error budget.
        start: what an earlier run consumed already.
        end: the stream ends before this position; None: never.
        error_budget: instead of the config's.
        report: gets a line for each batch that is left out and each worker replaced; called in the consumer's thread.
    """

    def __init__(
        self,
        task: Task,
        *,
        config: LoaderConfig,
        start: StreamState = StreamState(),
        end: int | None = None,
        error_budget: int | None = None,
        report: Callable[[str], None] = warnings.warn,
    ) -> None:
        self._task = task
        self._report = report
        budget = config.error_budget if error_budget is None else error_budget
        self._attempts = RetryPolicy(task, max_attempts=config.max_attempts, error_budget=budget)
        capacity = max(config.num_workers * config.prefetch_per_worker, 1)
        self._window = ReorderWindow(window=config.window, capacity=capacity, start=start, end=end)
        self._shared = SharedState(window=self._window)
        self._supervisor = (
            Supervisor(task, config, shared=self._shared, attempts=self._attempts)
            if config.num_workers
            else None
        )

    def __iter__(self) -> Iterator[Delivery]:
        return self

    def __next__(self) -> Delivery:
        try:
            delivery = (
                self._next_here()
                if self._supervisor is None
                else self._next_from_workers(self._supervisor)
            )
        finally:
            self._pass_on_news()
        if delivery is None:
            raise StopIteration
        return replace(delivery, skipped=self._take_skipped())

    def _next_here(self) -> Delivery | None:
        self._refuse_if_closed()
        while (position := self._window.next_to_prepare()) is not None:
            result = self._prepare_here(position)
            distance = self._window.deliver(position)
            if isinstance(result, Prepared):
                return _delivery(position, result, queue_depth=0, distance=distance)
        return None

    def _prepare_here(self, position: int) -> Prepared | None:
        """The batch, or None if it is left out."""
        while isinstance(result := attempt(self._task, position), Failure):
            verdict = self._attempts.failed(position, result)
            if verdict.error is not None:
                raise verdict.error
            if not verdict.is_another_try:
                self._shared.skipped.append(position)
                self._shared.news.append(verdict.report)
                return None
        return result

    def _next_from_workers(self, supervisor: Supervisor) -> Delivery | None:
        shared = self._shared
        with shared.changed:
            while (position := self._window.choose(shared.ready)) is None:
                self._refuse_if_closed()
                if self._window.is_exhausted:
                    return None
                if shared.failure is not None:
                    raise LoaderError(
                        f"the loader cannot look after its workers: {explain(shared.failure)}"
                    ) from shared.failure
                shared.changed.wait()
            prepared = shared.ready[position]
            if isinstance(prepared, LoaderError):
                # it stays there: asked again, the stream ends with it again
                raise prepared
            del shared.ready[position]
            distance = self._window.deliver(position)
            depth = len(shared.ready)
        supervisor.wake()
        return _delivery(position, prepared, queue_depth=depth, distance=distance)

    def _refuse_if_closed(self) -> None:
        if self._shared.is_closed:
            raise LoaderError("the loader is closed; make a new one to read on")

    def _take_skipped(self) -> tuple[int, ...]:
        with self._shared.changed:
            skipped, self._shared.skipped = self._shared.skipped, []
        return tuple(skipped)

    def _pass_on_news(self) -> None:
        with self._shared.changed:
            news, self._shared.news = self._shared.news, []
        for line in news:
            self._report(line)

    def close(self) -> None:
        """Ends the workers and waits for them; safe to call twice."""
        with self._shared.changed:
            self._shared.is_closed = True
            self._shared.ready.clear()
            self._shared.changed.notify_all()
        if self._supervisor is not None:
            self._supervisor.stop()

    def __enter__(self) -> "WorkerStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _delivery(position: int, prepared: Prepared, *, queue_depth: int, distance: int) -> Delivery:
    return Delivery(
        position=position,
        description=prepared.description,
        arrays=prepared.arrays,
        preparation_seconds=prepared.seconds,
        queue_depth=queue_depth,
        reorder_distance=distance,
    )
