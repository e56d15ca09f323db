"""The thread that looks after the worker processes: hands out positions, collects batches, replaces workers that fail."""

import multiprocessing
import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.main_module import NO_GUARD, NO_GUARD_EXIT_CODE, check_main_module
from openfold_opt.loader.reorder_window import ReorderWindow
from openfold_opt.loader.retry_policy import LoaderError, RetryPolicy
from openfold_opt.loader.socket_folder import use_short_socket_folder
from openfold_opt.loader.worker import Failure, Prepared, Task, Worker

FORKSERVER_PRELOAD = ["openfold_opt.loader.loader"]
"""Imported once by the server that workers are forked from, so that a new worker starts in milliseconds."""


def prepare_to_start_workers(config: LoaderConfig) -> None:
    """Raise ValueError if worker processes cannot be started on this machine as configured. Nothing is started."""
    if config.num_workers and config.start_method != "fork":
        check_main_module()
    if config.num_workers and config.start_method == "forkserver":
        use_short_socket_folder()


@dataclass(kw_only=True, eq=False)
class SharedState:
    """What the consumer and the supervising thread both touch; only with `changed` held."""

    window: ReorderWindow
    ready: dict[int, Prepared | LoaderError] = field(default_factory=dict)
    """What may be delivered; an error ends the stream when its turn comes."""
    news: list[str] = field(default_factory=list)
    """Lines that the consumer has still to report: batches left out, workers replaced."""
    skipped: list[int] = field(default_factory=list)
    """Positions given up since the last delivery."""
    is_closed: bool = False
    failure: Exception | None = None
    """What ended the supervising thread, which no longer looks after the workers."""
    changed: threading.Condition = field(default_factory=threading.Condition)


class Supervisor:
    """Keeps up to `config.num_workers` processes busy until it is stopped."""

    def __init__(
        self, task: Task, config: LoaderConfig, *, shared: SharedState, attempts: RetryPolicy
    ) -> None:
        self._task = task
        self._config = config
        self._shared = shared
        self._attempts = attempts
        self._again: deque[int] = deque()
        """Positions to be prepared once more; before all others, as they are the oldest."""
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
        """Lets the thread look again: the window has moved, or it is to stop."""
        try:
            os.write(self._wake_write, b"1")
        except BlockingIOError:
            # the pipe is full of calls already
            return

    def stop(self) -> None:
        """Ends the thread and the workers; safe to call twice."""
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
            while not self._is_stopped:
                self._hand_out()
                for worker in self._wait():
                    self._hear(worker)
                self._check_deadlines()
        except Exception as error:  # raised again in the consumer
            with self._shared.changed:
                self._shared.failure = error
                self._shared.changed.notify_all()

    def _hand_out(self) -> None:
        """Gives every idle worker a position. Workers start when first needed, those that replace dead ones too."""
        idle = [worker for worker in self._workers if worker.position is None]
        while idle or len(self._workers) < self._config.num_workers:
            position = self._next_position()
            if position is None:
                return
            worker = idle.pop() if idle else self._start_worker()
            worker.ask(position)

    def _start_worker(self) -> Worker:
        self._num_started += 1
        worker = Worker.start(
            self._task, start_method=self._config.start_method, name=f"loader-{self._num_started}"
        )
        self._workers.append(worker)
        return worker

    def _next_position(self) -> int | None:
        if self._again:
            return self._again.popleft()
        with self._shared.changed:
            return self._shared.window.next_to_prepare()

    def _wait(self) -> list[Worker]:
        """Sleeps until a worker answers or dies, the consumer calls, or a deadline passes; returns the workers to be heard."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        by_descriptor = {worker.channel.fileno(): worker for worker in self._workers}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        asked = [worker.asked for worker in self._workers if worker.position is not None]
        milliseconds = (
            (min(asked) + self._config.timeout_seconds - time.monotonic()) * 1000 if asked else None
        )
        events = poll.poll(None if milliseconds is None else max(milliseconds, 0.0) + 1)
        if any(descriptor == self._wake_read for descriptor, _ in events):
            os.read(self._wake_read, 4096)
        return [
            by_descriptor[descriptor] for descriptor, _ in events if descriptor in by_descriptor
        ]

    def _hear(self, worker: Worker) -> None:
        """Books an answer, or a death, which comes through the channel too."""
        position = worker.position
        result = worker.receive()
        if result is None:
            self._give_up(worker, reason=worker.describe_exit())
        elif isinstance(result, Failure):
            self._book_failure(position, result)
        else:
            with self._shared.changed:
                self._shared.ready[position] = result
                self._shared.changed.notify_all()

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.position is not None and now - worker.asked > self._config.timeout_seconds:
                self._give_up(
                    worker,
                    reason=f"no answer within {self._config.timeout_seconds} s (LoaderConfig.timeout_seconds)",
                )

    def _give_up(self, worker: Worker, *, reason: str) -> None:
        self._workers.remove(worker)
        worker.kill()
        if worker.process.exitcode == NO_GUARD_EXIT_CODE:
            raise LoaderError(NO_GUARD)
        with self._shared.changed:
            self._shared.news.append(f"a worker of the loader is replaced: {reason}")
        if worker.position is not None:
            self._book_failure(worker.position, Failure(reason=reason))

    def _book_failure(self, position: int, failure: Failure) -> None:
        verdict = self._attempts.failed(position, failure)
        if verdict.is_another_try:
            self._again.append(position)
            return
        with self._shared.changed:
            if verdict.error is not None:
                self._shared.ready[position] = verdict.error
            else:
                self._shared.window.deliver(position)
                self._shared.skipped.append(position)
                self._shared.news.append(verdict.report)
            self._shared.changed.notify_all()
