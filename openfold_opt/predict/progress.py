"""One line per chain with its scores and the time that is left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

SECONDS_BETWEEN_PASS_LINES = 30.0
"""A chain that takes longer than this also gets lines for its passes."""
MAX_WARNINGS = 10
"""Maximum number of printed warnings about the features of the chains."""


class ChainProgress:
    """Prints the progress of the chains of this process.

    The time left is the cost of the remaining chains divided by the rate so far. A cost is
    proportional to the expected time of a chain.
    """

    def __init__(
        self,
        costs: list[float],
        *,
        prefix: str = "",
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """costs: cost of each chain, in order. prefix: start of every line."""
        self._costs, self._prefix, self._write, self._clock = costs, prefix, write, clock
        self._started = self._last_line = clock()
        self._num_done = self._num_warnings = 0
        self._done_cost = 0.0

    def passed(self, name: str, passes_done: int, num_passes: int) -> None:
        """Report a pass of the current chain, if the last line was long ago."""
        now = self._clock()
        if now - self._last_line >= SECONDS_BETWEEN_PASS_LINES:
            self._last_line = now
            self._write(f"{self._prefix}{name}: {passes_done} of {num_passes} passes")

    def warned(self, name: str, warnings: Sequence[str]) -> None:
        """Print the warnings about the features of a chain, up to MAX_WARNINGS of all chains."""
        for text in warnings:
            self._num_warnings += 1
            if self._num_warnings <= MAX_WARNINGS:
                self._write(f"{self._prefix}warning: {name}: {text}")
            elif self._num_warnings == MAX_WARNINGS + 1:
                self._write(f"{self._prefix}more warnings are in the records of the chains")

    def finished(self, text: str, *, has_result: bool) -> None:
        """Report the end of the next chain. text: what happened, without the time left."""
        cost = self._costs[self._num_done]
        self._num_done += 1
        # A chain without a result ended early, so it says nothing about the rate.
        if has_result:
            self._done_cost += cost
        self._last_line = self._clock()
        count = f"[{self._num_done:>{len(str(len(self._costs)))}}/{len(self._costs)}]"
        self._write(f"{self._prefix}{count} {text}{self._time_left()}")

    def _time_left(self) -> str:
        remaining = sum(self._costs[self._num_done :])
        if not remaining or not self._done_cost:
            return ""
        seconds = (self._clock() - self._started) / self._done_cost * remaining
        return f"; about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Format a time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def print_line(line: str) -> None:
    """Print a line at once.

    If the reader of a pipe has ended (`... | head`), the prediction continues without output.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
