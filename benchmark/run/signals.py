"""Signals that stop a run: Ctrl-C, and the preemption signals of a scheduler."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from openfold_opt.parallel.process_exit import SIGNAL_EXIT_CODES
from openfold_opt.train.preemption import StopRequest

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""All of them request a stop."""
SAME_SIGNAL_SECONDS = 5.0
"""A signal within this time of the first one is the same request, which reached this process twice
(from the terminal or scheduler, and from the launcher)."""


class Terminated(BaseException):
    """Ends the process at once: for a signal outside of training, or for a second signal."""

    def __init__(self, number: int) -> None:
        """number: number of the signal."""
        super().__init__(f"ended at once by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """Exit code of a process that this signal ends: 130 for Ctrl-C, 143 for SIGTERM."""
        # SIGUSR1 requests the same as SIGTERM.
        number = signal.SIGTERM if self.number == signal.SIGUSR1 else self.number
        return SIGNAL_EXIT_CODES + number


@contextmanager
def stopping_by_signal(stop_request: StopRequest) -> Iterator[None]:
    """Let signals stop the training at the next step.

    Outside of training, and for a second signal before the training has acknowledged the first one,
    the handler raises Terminated. Only the main thread receives signals; in another thread this
    does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first_time: float | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal first_time
        now = time.monotonic()
        is_second = first_time is not None
        if is_second and now - first_time <= SAME_SIGNAL_SECONDS:
            return
        if not is_second:
            first_time = now
        if not stop_request.is_watched or (is_second and not stop_request.is_acknowledged):
            raise Terminated(number)
        stop_request.is_raised = True

    previous = {number: signal.signal(number, stop) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
