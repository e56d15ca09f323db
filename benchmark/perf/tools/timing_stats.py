"""Repeated measurements, their summary statistics, and text tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Times of repeated training steps in one process."""

    seconds: list[float]
    """Time of each timed step."""
    losses: list[float]
    """Loss of each step, untimed ones included."""
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class TimingStats:
    """Median, minimum and maximum of repeated measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> TimingStats:
        """Summarize measurements.

        Raises:
            ValueError: There are none.
        """
        if not values:
            raise ValueError("no measurements to summarize")
        return cls(
            median=statistics.median(values), low=min(values), high=max(values), count=len(values)
        )

    def ratio_to(self, other: TimingStats) -> TimingStats:
        """Return the ratio of the medians, with the smallest and largest of any two values."""
        return TimingStats(
            median=self.median / other.median,
            low=self.low / other.high,
            high=self.high / other.low,
            count=min(self.count, other.count),
        )

    def text(self, decimals: int, *, scale: float = 1.0) -> str:
        """Format "median (low to high)", each multiplied by `scale`."""
        median, low, high = (
            f"{scale * value:.{decimals}f}" for value in (self.median, self.low, self.high)
        )
        return f"{median} ({low} to {high})"


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str]) -> str:
    """Format a table with aligned columns, the first one to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
