"""Progress of a long command: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0
_KIBIBYTE = 1024.0


_Item = TypeVar("_Item")


class Progress:
    """A progress display. Use as a context manager.

    On a terminal it draws a bar. In a log file a bar would be one endless line, so a line with the
    progress and the estimated remaining time is printed every 15 seconds. Work that takes less
    time prints nothing.
    """

    def __init__(self, total: int | None, *, what: str, unit: str, is_silent: bool = False) -> None:
        """Start the display.

        Args:
            total: amount of work in units; None if unknown.
            what: name of the work.
            unit: name of a unit; "B" is printed as KiB, MiB, ...
            is_silent: whether to print nothing.
        """
        self.done = 0
        self._total, self._what, self._unit = total, what, unit
        self._is_silent = is_silent
        self._bar = None
        if not is_silent and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B")
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def describe(self, what: str) -> None:
        """Change the name of the work."""
        self._what = what
        if self._bar is not None:
            self._bar.set_description(what)

    def update(self, amount: int = 1) -> None:
        """Add an amount of finished work."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)
        elif not self._is_silent and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self._line(self._last_line - self._started), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        if not self._total:
            return (
                f"{self._what}: {self._amount(self.done)}{self._plural} after {duration(seconds)}"
            )
        left = seconds / self.done * (self._total - self.done) if self.done else 0.0
        return (
            f"{self._what}: {self._amount(self.done)} of {self._amount(self._total)}{self._plural} "
            f"({self.done / self._total:.0%}) after {duration(seconds)}, about "
            f"{duration(max(left, 0.0))} left"
        )

    @property
    def _plural(self) -> str:
        return "" if self._unit == "B" else f" {self._unit}s"

    def _amount(self, value: float) -> str:
        if self._unit != "B":
            return f"{value:,}"
        for prefix in ("", "Ki", "Mi", "Gi"):
            if value < _KIBIBYTE:
                return f"{value:,.1f} {prefix}B"
            value /= _KIBIBYTE
        return f"{value:,.1f} TiB"


def tracked(
    items: Iterable[_Item], *, what: str, unit: str, total: int | None = None
) -> Iterator[_Item]:
    """Yield the items and display the progress.

    An item counts as finished when the next one is requested.

    Args:
        total: number of items, if they have no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, what=what, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


def duration(seconds: float) -> str:
    """Format a time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
