"""A stream of batches that worker processes prepare ahead, delivered within a reorder window.

Workers may die, hang or fail. A supervisor thread of the consuming process assigns one position at
a time to each worker, collects the batches, replaces workers that die or exceed the deadline, and
retries failed batches on any free worker. A batch that fails in every attempt is reported, counted
and skipped until the error budget is exhausted; the next failure ends the stream with a
LoaderError. Every assigned position has a deadline, so the consumer always gets a batch or an
error.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

from openfold_opt.loader.batch import Delivery
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.reorder_window import ReorderWindow, StreamState
from openfold_opt.loader.retry_policy import LoaderError, RetryPolicy, explain
from openfold_opt.loader.supervisor import SharedState, Supervisor
from openfold_opt.loader.worker import Failure, Task, attempt


class WorkerStream:
    """Iterates over the batches at positions 0, 1, 2, .. of a stream.

    Each position is delivered or skipped exactly once.

    With num_workers 0 the task runs in this process, in order. Use the stream as a context manager,
    or call close(), which stops all workers.

    Args:
        task: prepares one position.
        config: workers, window, deadline and error budget.
        start: the part of the stream that an earlier run consumed.
        end: the stream ends before this position, plus one for each skipped position; None: the
            stream is endless.
        error_budget: overrides the error budget of the config.
        report: called in the thread of the consumer with a message for each skipped batch and each
            replaced worker.
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
        self._retry_policy = RetryPolicy(
            task, max_attempts=config.max_attempts, error_budget=budget
        )
        capacity = max(config.num_workers * config.prefetch_per_worker, 1)
        self._window = ReorderWindow(window=config.window, capacity=capacity, start=start, end=end)
        self._shared = SharedState(window=self._window)
        self._supervisor = (
            Supervisor(task, config, shared=self._shared, retry_policy=self._retry_policy)
            if config.num_workers
            else None
        )

    def __iter__(self) -> Iterator[Delivery]:
        return self

    def __next__(self) -> Delivery:
        try:
            delivery = (
                self._next_in_process()
                if self._supervisor is None
                else self._next_from_workers(self._supervisor)
            )
        finally:
            self._report_messages()
        if delivery is None:
            raise StopIteration
        return replace(delivery, skipped=self._take_skipped())

    def _next_in_process(self) -> Delivery | None:
        self._raise_if_closed()
        while (position := self._window.next_to_prepare()) is not None:
            result = self._prepare_in_process(position)
            if result is not None:
                return replace(result, reorder_distance=self._window.complete(position))
            self._window.drop(position)
        return None

    def _prepare_in_process(self, position: int) -> Delivery | None:
        """Prepare a batch; return None if it is skipped."""
        while isinstance(result := attempt(self._task, position), Failure):
            outcome = self._retry_policy.record_failure(position, result)
            if outcome.error is not None:
                raise outcome.error
            if not outcome.is_retry:
                self._shared.skipped.append(position)
                self._shared.messages.append(outcome.report)
                return None
        return result

    def _next_from_workers(self, supervisor: Supervisor) -> Delivery | None:
        shared = self._shared
        with shared.changed:
            while (position := self._window.choose(shared.ready)) is None:
                self._raise_if_closed()
                if self._window.is_exhausted:
                    return None
                if shared.failure is not None:
                    raise LoaderError(
                        f"the supervisor of the loader's workers failed: {explain(shared.failure)}"
                    ) from shared.failure
                shared.changed.wait()
            prepared = shared.ready[position]
            if isinstance(prepared, LoaderError):
                # The error stays in `ready`, so that further calls raise it too.
                raise prepared
            del shared.ready[position]
            distance = self._window.complete(position)
            depth = len(shared.ready)
        supervisor.wake()
        return replace(prepared, queue_depth=depth, reorder_distance=distance)

    def _raise_if_closed(self) -> None:
        if self._shared.is_closed:
            raise LoaderError("the loader is closed; create a new one to read more batches")

    def _take_skipped(self) -> tuple[int, ...]:
        with self._shared.changed:
            skipped, self._shared.skipped = self._shared.skipped, []
        return tuple(skipped)

    def _report_messages(self) -> None:
        with self._shared.changed:
            messages, self._shared.messages = self._shared.messages, []
        for message in messages:
            self._report(message)

    def close(self) -> None:
        """Stop the workers and wait for them. Safe to call twice."""
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
