"""Ten ways to alter a log that was right, none of which may be accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from benchmark.log_events import MARK

HOUR_MS = 3_600_000


def read(line: str) -> dict | None:
    """The event on a line; None if there is none."""
    return json.loads(line.partition(MARK)[2]) if MARK in line else None


def places(lines: list[str], key: str) -> list[int]:
    """Indices of the lines with this key."""
    return [index for index, line in enumerate(lines) if f'"key": "{key}"' in line]


def changed(line: str, **fields) -> str:
    return MARK + json.dumps(read(line) | fields)


def stop_before_start(lines: list[str]) -> list[str]:
    """run_stop on the line before run_start, with its time."""
    (start,), (stop,) = places(lines, "run_start"), places(lines, "run_stop")
    moved = changed(lines[stop], time_ms=read(lines[start])["time_ms"])
    rest = lines[:stop] + lines[stop + 1 :]
    return rest[:start] + [moved] + rest[start:]


def stop_an_hour_early(lines: list[str]) -> list[str]:
    (stop,) = places(lines, "run_stop")
    early = [
        re.sub(r'"time_ms": (\d+)', lambda found: f'"time_ms": {int(found[1]) - HOUR_MS}', line)
        for line in lines[stop:]
    ]
    return lines[:stop] + early


def accuracy_an_hour_back(lines: list[str]) -> list[str]:
    at = places(lines, "eval_accuracy")[0]
    back = changed(lines[at], time_ms=read(lines[at])["time_ms"] - HOUR_MS)
    return lines[:at] + [back] + lines[at + 1 :]


def every_event_twice(lines: list[str]) -> list[str]:
    return [line for line in lines for _ in range(2 if MARK in line else 1)]


def two_run_starts(lines: list[str]) -> list[str]:
    (start,) = places(lines, "run_start")
    second = changed(lines[start], time_ms=read(lines[start])["time_ms"] + 1)
    # after the next line whose time is not earlier, so that only the number of them is wrong
    at = next(
        index
        for index in range(start + 1, len(lines))
        if MARK in lines[index] and read(lines[index])["time_ms"] > read(lines[start])["time_ms"]
    )
    return lines[:at] + [second] + lines[at:]


def two_events_on_a_line(lines: list[str]) -> list[str]:
    at = places(lines, "eval_accuracy")[-1]
    return lines[:at] + [lines[at] + lines[at + 1]] + lines[at + 2 :]


def an_event_inside_another(lines: list[str]) -> list[str]:
    at = places(lines, "eval_accuracy")[-1]
    whole, middle = lines[at], len(lines[at]) // 2
    return lines[:at] + [whole[:middle] + lines[at + 1] + whole[middle:]] + lines[at + 2 :]


def negative_time(lines: list[str]) -> list[str]:
    at = next(index for index, line in enumerate(lines) if MARK in line)
    return lines[:at] + [changed(lines[at], time_ms=-1)] + lines[at + 1 :]


def fractional_time(lines: list[str]) -> list[str]:
    at = places(lines, "global_batch_size")[0]
    time_ms = read(lines[at])["time_ms"]
    return lines[:at] + [changed(lines[at], time_ms=time_ms + 0.5)] + lines[at + 1 :]


def no_accuracy(lines: list[str]) -> list[str]:
    at = places(lines, "eval_accuracy")[-1]
    return lines[:at] + lines[at + 1 :]


def another_status(lines: list[str]) -> list[str]:
    (stop,) = places(lines, "run_stop")
    metadata = read(lines[stop])["metadata"] | {"status": "aborted"}
    return lines[:stop] + [changed(lines[stop], metadata=metadata)] + lines[stop + 1 :]


ALTERATIONS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "run_stop before run_start": (stop_before_start, "run_stop is not after run_start"),
    "run_stop an hour early": (stop_an_hour_early, "expected times that do not decrease"),
    "eval_accuracy an hour back": (accuracy_an_hour_back, "eval_accuracy has time_ms"),
    "every event twice": (every_event_twice, "is the same event as on line"),
    "two run_start": (two_run_starts, "2 run_start, on lines"),
    "two events on a line": (two_events_on_a_line, "has 2 events"),
    "an event inside another": (an_event_inside_another, "has 2 events"),
    "negative time": (negative_time, "expected a whole number of milliseconds"),
    "fractional time": (fractional_time, "expected a whole number of milliseconds"),
    "no eval_accuracy": (no_accuracy, "run_stop says success, but"),
    "another status": (another_status, "run_stop says aborted, but eval_accuracy on line"),
}
"""Name -> what it does to the lines of a log, and a part of the reason that must be given.

The kinds are ten: a time that is negative and one that is not whole count as one.
"""
