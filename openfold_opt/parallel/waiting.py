"""Waiting for other ranks with progress messages and signal handling.

A call into the store may block in C++ as long as the other side does not respond, and Python runs
no signal handler meanwhile. Such calls are therefore made in a thread, while the calling thread
handles signals. If the calling thread stops waiting and the blocked call does not return, the
thread is abandoned, and the process must exit through `process_exit.exit_process`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

REPORT_SECONDS = 30.0
"""Interval of the messages that say what a rank waits for."""
ABANDON_SECONDS = 0.5
"""Time for the thread to notice that the caller has stopped waiting."""


class Wait(Generic[T]):
    """State shared by the waiting thread and the thread that makes the blocking calls."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self.target = "an answer"
        """What is waited for, in messages. The blocking thread updates it."""
        self.is_over = threading.Event()
        """Set when the caller has stopped waiting. The blocking thread checks it between calls."""
        self.timeout_seconds = timeout_seconds
        self._started = time.monotonic()
        self._is_done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    @property
    def seconds(self) -> float:
        """Time since the start of the wait."""
        return time.monotonic() - self._started

    def run(self, body: Callable[[Wait[T]], T]) -> None:
        """Run `body`; the main function of the blocking thread."""
        try:
            self._result = body(self)
        except BaseException as error:  # `result` raises it in the waiting thread.
            self._error = error
        self._is_done.set()

    def result(self, *, who: str) -> T:
        """Wait for `body`, and return its result or raise its exception.

        Raises:
            TimeoutError: the body has not finished in time; names what was waited for.
        """
        next_report = REPORT_SECONDS
        while not self._is_done.wait(_until(min(next_report, self.timeout_seconds) - self.seconds)):
            if self.seconds >= self.timeout_seconds:
                raise TimeoutError(f"{who} waited {self.seconds:.0f} s for {self.target}")
            if self.seconds >= next_report:
                next_report += REPORT_SECONDS
                progress = f"{self.seconds:.0f} s so far, at most {self.timeout_seconds:.0f} s"
                print(f"{who} waits for {self.target} ({progress})", file=sys.stderr, flush=True)
        if self._error is not None:
            raise self._error
        return self._result


def wait_interruptibly(body: Callable[[Wait[T]], T], *, who: str, timeout_seconds: float) -> T:
    """Run a function that may block in C++ and return its result; signals are handled meanwhile.

    Args:
        body: called in a thread; updates `target` and returns soon after `is_over` is set.
        who: name of this rank in messages.
        timeout_seconds: maximum time to wait.

    Raises:
        TimeoutError: the body has not finished in time. Exceptions of the body are raised as well.
    """
    wait: Wait[T] = Wait(timeout_seconds=timeout_seconds)
    thread = threading.Thread(
        target=wait.run, args=(body,), name="waiting for other ranks", daemon=True
    )
    thread.start()
    try:
        return wait.result(who=who)
    finally:
        wait.is_over.set()
        thread.join(ABANDON_SECONDS)


def _until(seconds: float) -> float:
    return max(seconds, 0.001)
