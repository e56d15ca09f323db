"""Ten ways to alter a valid log; every altered log must be refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from benchmark.mlperf.run_log import MARK

HOUR_MS = 3_600_000


def read(line: str) -> dict | None:
    """Return the event on a line, or None."""
    return json.loads(line.partition(MARK)[2]) if MARK in line else None


def indices_of(lines: list[str], key: str) -> list[int]:
    """Return the indices of the lines with this key."""
    return [index for index, line in enumerate(lines) if f'"key": "{key}"' in line]


def changed(line: str, **fields) -> str:
    return MARK + json.dumps(read(line) | fields)


def stop_before_start(lines: list[str]) -> list[str]:
    """Move run_stop to the line before run_start, with the time of run_start."""
    (start,), (stop,) = indices_of(lines, "run_start"), indices_of(lines, "run_stop")
    moved = changed(lines[stop], time_ms=read(lines[start])["time_ms"])
    rest = lines[:stop] + lines[stop + 1 :]
    return rest[:start] + [moved] + rest[start:]


def stop_an_hour_early(lines: list[str]) -> list[str]:
    (stop,) = indices_of(lines, "run_stop")
    early = [
        re.sub(r'"time_ms": (\d+)', lambda match: f'"time_ms": {int(match[1]) - HOUR_MS}', line)
        for line in lines[stop:]
    ]
    return lines[:stop] + early


def accuracy_an_hour_back(lines: list[str]) -> list[str]:
    index = indices_of(lines, "eval_accuracy")[0]
    back = changed(lines[index], time_ms=read(lines[index])["time_ms"] - HOUR_MS)
    return lines[:index] + [back] + lines[index + 1 :]


def every_event_twice(lines: list[str]) -> list[str]:
    return [line for line in lines for _ in range(2 if MARK in line else 1)]


def two_run_starts(lines: list[str]) -> list[str]:
    (start,) = indices_of(lines, "run_start")
    second = changed(lines[start], time_ms=read(lines[start])["time_ms"] + 1)
    # Insert it after the next line with a later time, so that only the number of events is wrong.
    index = next(
        i
        for i in range(start + 1, len(lines))
        if MARK in lines[i] and read(lines[i])["time_ms"] > read(lines[start])["time_ms"]
    )
    return lines[:index] + [second] + lines[index:]


def two_events_on_a_line(lines: list[str]) -> list[str]:
    index = indices_of(lines, "eval_accuracy")[-1]
    return lines[:index] + [lines[index] + lines[index + 1]] + lines[index + 2 :]


def an_event_inside_another(lines: list[str]) -> list[str]:
    index = indices_of(lines, "eval_accuracy")[-1]
    whole, middle = lines[index], len(lines[index]) // 2
    return lines[:index] + [whole[:middle] + lines[index + 1] + whole[middle:]] + lines[index + 2 :]


def negative_time(lines: list[str]) -> list[str]:
    index = next(i for i, line in enumerate(lines) if MARK in line)
    return lines[:index] + [changed(lines[index], time_ms=-1)] + lines[index + 1 :]


def fractional_time(lines: list[str]) -> list[str]:
    index = indices_of(lines, "global_batch_size")[0]
    time_ms = read(lines[index])["time_ms"]
    return lines[:index] + [changed(lines[index], time_ms=time_ms + 0.5)] + lines[index + 1 :]


def no_accuracy(lines: list[str]) -> list[str]:
    index = indices_of(lines, "eval_accuracy")[-1]
    return lines[:index] + lines[index + 1 :]


def another_status(lines: list[str]) -> list[str]:
    (stop,) = indices_of(lines, "run_stop")
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
"""Name -> function that alters the lines of a log, and a part of the expected error message.

Negative and fractional times count as one kind, so there are ten kinds.
"""
