"""Compare the wall clock of a run with the monotonic clock, which cannot be set."""

from __future__ import annotations

import time
from dataclasses import dataclass

TOLERANCE_SECONDS = 1.0
RELATIVE_TOLERANCE = 1e-3
"""For time synchronization, which slows down or speeds up the wall clock."""


@dataclass(frozen=True, kw_only=True)
class RunDurations:
    """Durations of a run in run.json."""

    wall_seconds: float
    monotonic_seconds: float
    disagreement: str | None
    """An error message if the two durations differ too much, else None."""


class RunClock:
    """Durations since the start of a run on both clocks; 0 before the start."""

    def __init__(self) -> None:
        self._wall_start = self._wall_stop = 0.0
        self._monotonic_start = self._monotonic_stop = 0.0

    def start(self) -> None:
        """Start at run_start."""
        self._wall_start, self._monotonic_start = time.time(), time.monotonic()
        self._wall_stop, self._monotonic_stop = self._wall_start, self._monotonic_start

    def stop(self) -> None:
        """Stop at run_stop."""
        self._wall_stop, self._monotonic_stop = time.time(), time.monotonic()

    @property
    def wall_seconds(self) -> float:
        """Duration on the wall clock; negative if the clock was set back."""
        return self._wall_stop - self._wall_start

    @property
    def monotonic_seconds(self) -> float:
        """Duration on the monotonic clock."""
        return self._monotonic_stop - self._monotonic_start

    def durations(self) -> RunDurations:
        """Return the durations, rounded to milliseconds."""
        return RunDurations(
            wall_seconds=round(self.wall_seconds, 3),
            monotonic_seconds=round(self.monotonic_seconds, 3),
            disagreement=self.disagreement(),
        )

    def disagreement(self) -> str | None:
        """Return an error message if the clocks disagree, else None."""
        return clock_disagreement(self.wall_seconds, self.monotonic_seconds)


def clock_disagreement(wall_seconds: float, monotonic_seconds: float) -> str | None:
    """Return an error message if two durations of the same run differ too much, else None."""
    tolerance = TOLERANCE_SECONDS + RELATIVE_TOLERANCE * abs(monotonic_seconds)
    if abs(wall_seconds - monotonic_seconds) <= tolerance:
        return None
    return (
        f"the run took {wall_seconds:.3f} s by the wall clock and {monotonic_seconds:.3f} s by the "
        f"monotonic clock; expected a difference of at most {tolerance:.3f} s: the system's clock "
        "was set during the run, so its log is not a result"
    )
