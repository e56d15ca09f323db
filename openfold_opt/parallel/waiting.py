"""Waiting for other ranks: it says for whom, and a signal can end it.

A call into the store may block in C++ for as long as the other end is silent, and Python runs no
signal handler meanwhile. So such calls are made in a thread, while the calling thread stays open to
signals. If the calling thread stops waiting and the blocked call does not return, the thread is
left behind, and the process must end through `leaving.leave`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

REPORT_SECONDS = 30.0
"""Between two lines that say for whom a rank waits."""
ABANDON_SECONDS = 0.5
"""For the thread to notice that the caller has stopped waiting."""


class Wait(Generic[T]):
    """What the waiting thread and the thread that makes the blocking calls share."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self.whom = "an answer"
        """For whom or what is waited; the blocking thread keeps it up to date."""
        self.is_over = threading.Event()
        """Set when the caller has stopped waiting. The blocking thread looks at it between two calls."""
        self.timeout_seconds = timeout_seconds
        self._started = time.monotonic()
        self._is_done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    @property
    def seconds(self) -> float:
        """Time since the wait began."""
        return time.monotonic() - self._started

    def run(self, body: Callable[[Wait[T]], T]) -> None:
        """The main function of the blocking thread."""
        try:
            self._result = body(self)
        except BaseException as error:  # raised again in the thread that waits
            self._error = error
        self._is_done.set()

    def result(self, *, who: str) -> T:
        """Wait for what `body` returns or raises. TimeoutError names whom was waited for."""
        next_report = REPORT_SECONDS
        while not self._is_done.wait(_until(min(next_report, self.timeout_seconds) - self.seconds)):
            if self.seconds >= self.timeout_seconds:
                raise TimeoutError(f"{who} waited {self.seconds:.0f} s for {self.whom}")
            if self.seconds >= next_report:
                next_report += REPORT_SECONDS
                progress = f"{self.seconds:.0f} s so far, at most {self.timeout_seconds:.0f} s"
                print(f"{who} waits for {self.whom} ({progress})", file=sys.stderr, flush=True)
        if self._error is not None:
            raise self._error
        return self._result


def wait_openly(body: Callable[[Wait[T]], T], *, who: str, timeout_seconds: float) -> T:
    """Run a body that may block in C++, and return its result; signals are handled meanwhile.

    body: it keeps `whom` up to date and returns soon after `is_over` is set. who: names this rank
    in messages.

    Raises what the body raises, and TimeoutError after timeout_seconds.
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
