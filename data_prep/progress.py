"""Progress of a long command: a bar on a terminal, a line now and then elsewhere."""

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
    """Counts work that is done. Use as a context manager.

    On a terminal it draws a bar. In a log file a bar would be one endless line, so a line is
    printed every 15 seconds: how much of how much, and about how long it will take. Work that is
    finished earlier prints nothing.
    """

    def __init__(self, total: int | None, *, what: str, unit: str, is_silent: bool = False) -> None:
        """total: amount of work in units, None if unknown; unit "B" is printed as KiB, MiB, ..."""
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
        """Name the part of the work that begins."""
        self._what = what
        if self._bar is not None:
            self._bar.set_description(what)

    def update(self, amount: int = 1) -> None:
        """Count work that is finished."""
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
    """Yield the items, and count each as finished when the next one is asked for.

    total: number of items, where they have no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, what=what, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
