"""The thread that assigns positions to workers, collects batches and replaces failed workers."""

import multiprocessing
import os
import select
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import resource_tracker

from openfold_opt.loader.batch import Delivery
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.main_module import (
    MISSING_GUARD,
    MISSING_GUARD_EXIT_CODE,
    check_main_module,
)
from openfold_opt.loader.reorder_window import ReorderWindow
from openfold_opt.loader.retry_policy import LoaderError, RetryPolicy
from openfold_opt.loader.socket_folder import use_short_socket_folder
from openfold_opt.loader.worker import Failure, Task, Worker

FORKSERVER_PRELOAD = ["openfold_opt.loader.loader"]
"""Modules that the fork server imports once, so that a new worker starts in milliseconds."""

GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that launchers send to the whole process group.

The consumer handles them and ends its workers.
"""


def prepare_to_start_workers(config: LoaderConfig) -> None:
    """Check that worker processes can be started as configured, without starting any.

    Raises:
        ValueError: the main module cannot be imported, or there is no folder for sockets.
    """
    if config.num_workers and config.start_method != "fork":
        check_main_module()
    if config.num_workers and config.start_method == "forkserver":
        use_short_socket_folder()


@dataclass(kw_only=True, eq=False)
class SharedState:
    """State shared by the consumer and the supervisor thread; hold `changed` to access it."""

    window: ReorderWindow
    ready: dict[int, Delivery | LoaderError] = field(default_factory=dict)
    """Prepared batches by position. An error ends the stream when its position is due."""
    messages: list[str] = field(default_factory=list)
    """Messages that the consumer has not reported yet: skipped batches, replaced workers."""
    skipped: list[int] = field(default_factory=list)
    """Positions skipped since the last delivery."""
    is_closed: bool = False
    failure: Exception | None = None
    """Exception that ended the supervisor thread."""
    changed: threading.Condition = field(default_factory=threading.Condition)


class Supervisor:
    """Keeps up to `config.num_workers` processes busy until it is stopped."""

    def __init__(
        self, task: Task, config: LoaderConfig, *, shared: SharedState, retry_policy: RetryPolicy
    ) -> None:
        self._task = task
        self._config = config
        self._shared = shared
        self._retry_policy = retry_policy
        self._retries: deque[int] = deque()
        """Positions to retry. They precede all others because they are the oldest."""
        self._num_started = 0
        self._is_stopped = False
        prepare_to_start_workers(config)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        if config.start_method == "forkserver":
            multiprocessing.get_context("forkserver").set_forkserver_preload(FORKSERVER_PRELOAD)
        self._workers: list[Worker] = []
        self._thread = threading.Thread(target=self._run, name="loader-supervisor", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread after the window has moved or a stop was requested."""
        try:
            os.write(self._wake_write, b"1")
        except BlockingIOError:
            # The pipe is full, so a wake-up is already pending.
            return

    def stop(self) -> None:
        """Stop the thread and the workers. Safe to call twice."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self.wake()
        self._thread.join()
        for worker in self._workers:
            worker.kill()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        try:
            self._block_group_signals()
            while not self._is_stopped:
                self._assign_positions()
                for worker in self._wait():
                    self._handle_answer(worker)
                self._check_deadlines()
        except Exception as error:  # The consumer raises it again.
            with self._shared.changed:
                self._shared.failure = error
                self._shared.changed.notify_all()

    def _block_group_signals(self) -> None:
        """Block group signals in this thread and in the processes that it starts.

        Otherwise SIGTERM would end the fork server.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        if self._config.start_method != "fork":
            resource_tracker.ensure_running()
            # The start of the tracker unblocks SIGINT and SIGTERM.
            signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)

    def _assign_positions(self) -> None:
        """Assign a position to every idle worker; start workers, also replacements, on demand."""
        idle = [worker for worker in self._workers if worker.position is None]
        while idle or len(self._workers) < self._config.num_workers:
            position = self._next_position()
            if position is None:
                return
            worker = idle.pop() if idle else self._start_worker()
            worker.request(position)

    def _start_worker(self) -> Worker:
        self._num_started += 1
        worker = Worker.start(
            self._task, start_method=self._config.start_method, name=f"loader-{self._num_started}"
        )
        self._workers.append(worker)
        return worker

    def _next_position(self) -> int | None:
        if self._retries:
            return self._retries.popleft()
        with self._shared.changed:
            return self._shared.window.next_to_prepare()

    def _wait(self) -> list[Worker]:
        """Wait for an answer, a death, a wake-up or a deadline; return the workers with events."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        by_descriptor = {worker.channel.fileno(): worker for worker in self._workers}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        request_times = [
            worker.request_time for worker in self._workers if worker.position is not None
        ]
        milliseconds = None
        if request_times:
            deadline = min(request_times) + self._config.timeout_seconds
            milliseconds = (deadline - time.monotonic()) * 1000
        # One millisecond more, so that the deadline has passed when poll returns.
        events = poll.poll(None if milliseconds is None else max(milliseconds, 0.0) + 1)
        if any(descriptor == self._wake_read for descriptor, _ in events):
            os.read(self._wake_read, 4096)
        return [
            by_descriptor[descriptor] for descriptor, _ in events if descriptor in by_descriptor
        ]

    def _handle_answer(self, worker: Worker) -> None:
        """Process an answer, or the death of the worker, which also makes the channel readable."""
        position = worker.position
        result = worker.receive()
        if result is None:
            self._drop_worker(worker, reason=worker.describe_exit())
        elif isinstance(result, Failure):
            self._handle_failure(position, result)
        else:
            with self._shared.changed:
                self._shared.ready[position] = result
                self._shared.changed.notify_all()

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if (
                worker.position is not None
                and now - worker.request_time > self._config.timeout_seconds
            ):
                self._drop_worker(
                    worker,
                    reason=f"no answer within {self._config.timeout_seconds} s "
                    "(LoaderConfig.timeout_seconds)",
                )

    def _drop_worker(self, worker: Worker, *, reason: str) -> None:
        """Kill a worker, which the next assignment replaces, and record its batch as failed."""
        self._workers.remove(worker)
        worker.kill()
        if worker.process.exitcode == MISSING_GUARD_EXIT_CODE:
            raise LoaderError(MISSING_GUARD)
        with self._shared.changed:
            self._shared.messages.append(f"a worker of the loader is replaced: {reason}")
        if worker.position is not None:
            self._handle_failure(worker.position, Failure(reason=reason))

    def _handle_failure(self, position: int, failure: Failure) -> None:
        outcome = self._retry_policy.record_failure(position, failure)
        if outcome.is_retry:
            self._retries.append(position)
            return
        with self._shared.changed:
            if outcome.error is not None:
                self._shared.ready[position] = outcome.error
            else:
                self._shared.window.drop(position)
                self._shared.skipped.append(position)
                self._shared.messages.append(outcome.report)
            self._shared.changed.notify_all()
