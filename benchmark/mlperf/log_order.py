"""Check that the times, the order and the outcome of the events of a log are possible in one run.

`check`, `summarize`, `submit` and `results` use these rules. The 56 logs published for MLPerf HPC
v3.0 satisfy all of them. The rules therefore allow evaluations that overlap with training, and
events after run_stop. Times never decrease from one line to the next.

A cycle is a training interval and its evaluation. The number of samples at its end, epoch_num,
identifies it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmark.mlperf.run_log import EVENT_KEYS, MONOTONIC_KEY, Event, as_table
from benchmark.run.run_clock import clock_disagreement

ONCE_KEYS = ("init_start", "init_stop", "run_start", "run_stop")
CYCLE_KEYS = ("epoch_start", "epoch_stop", "eval_start", "eval_accuracy", "eval_stop")
"""Each occurs at most once per cycle, and only after run_start."""
STARTS = {"epoch_stop": "epoch_start", "eval_accuracy": "eval_start", "eval_stop": "eval_start"}
"""Key of an event -> key of the event that begins its interval."""
DURATION_WORDS = ("duration", "seconds", "wait", "avg_perf_next_batch")
"""A number whose name contains one of these is a duration."""
SUCCESS = "success"
DEFAULT_TARGET = 0.8
MAX_TIME_MS = 2**63
MAX_LINES = 5
"""Number of errors of one rule that are listed; further errors are counted."""


def order_complaints(events: Sequence[Event]) -> list[str]:
    """Return error messages with line numbers, the values found, and what was expected.

    A missing event is not an error here, except for the evaluation before a success.

    events: the events of a RunLog.
    """
    complaints = []
    for rule in RULES:
        errors = list(rule(events))
        num_more = len(errors) - MAX_LINES
        complaints += errors[:MAX_LINES]
        complaints += [f"and {num_more} more like the last one"] if num_more > 0 else []
    return complaints


def _times(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        if not _has_time(event):
            yield (
                f"line {event.line}: time_ms of {event.key} is {event.time_ms!r}; "
                "expected a whole number of milliseconds, 0 or more"
            )


def _time_order(events: Sequence[Event]) -> Iterator[str]:
    timed = [event for event in events if _has_time(event)]
    for before, event in zip(timed, timed[1:], strict=False):
        if event.time_ms < before.time_ms:
            yield (
                f"line {event.line}: {event.key} has time_ms {event.time_ms}, "
                f"{before.time_ms - event.time_ms} ms before {before.key} on line "
                f"{before.line} ({before.time_ms}); expected times that do not decrease"
            )


def _once(events: Sequence[Event]) -> Iterator[str]:
    for key in ONCE_KEYS:
        lines = [str(event.line) for event in events if event.key == key]
        if len(lines) > 1:
            yield f"{len(lines)} {key}, on lines {', '.join(lines)}; expected one"


def _clock_order(events: Sequence[Event]) -> Iterator[str]:
    start, stop = _only(events, "run_start"), _only(events, "run_stop")
    if start is None:
        return
    if stop is not None and (stop.line < start.line or _is_earlier(stop, start)):
        yield (
            f"run_stop is not after run_start: it has line {stop.line} and time_ms "
            f"{stop.time_ms}, run_start has line {start.line} and time_ms {start.time_ms}"
        )
    for event in events:
        if event.key in CYCLE_KEYS and event.line < start.line:
            yield (
                f"line {event.line}: {event.key} is before run_start on line "
                f"{start.line}; expected it after the clock has started"
            )


def _duplicates(events: Sequence[Event]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for event in events:
        text = json.dumps({key: getattr(event, key) for key in EVENT_KEYS}, sort_keys=True)
        if text in seen:
            yield (
                f"line {event.line}: {event.key} is the same event as on line {seen[text]}; "
                "expected every event once"
            )
        seen.setdefault(text, event.line)


def _cycles(events: Sequence[Event]) -> Iterator[str]:
    """Check that the number of samples at the end of a cycle increases."""
    stops = [event for event in events if event.key == "epoch_stop" and _has_samples(event)]
    for before, event in zip(stops, stops[1:], strict=False):
        if _samples(event) <= _samples(before):
            yield (
                f"line {event.line}: epoch_stop at {_samples(event)} samples does not come "
                f"after {_samples(before)} samples on line {before.line}; expected more samples"
            )


def _repeated_cycles(events: Sequence[Event]) -> Iterator[str]:
    seen: dict[tuple[str, float], int] = {}
    for event in events:
        if event.key not in CYCLE_KEYS or not _has_samples(event):
            continue
        name = event.key, _samples(event)
        if name in seen:
            yield (
                f"line {event.line}: {event.key} at {_samples(event)} samples is also on "
                f"line {seen[name]}; expected one for each number of samples"
            )
        seen.setdefault(name, event.line)


def _intervals(events: Sequence[Event]) -> Iterator[str]:
    """Check that no interval ends before it begins."""
    starts: dict[tuple[str, float], list[int]] = defaultdict(list)
    for event in events:
        if event.key in STARTS.values() and _has_samples(event):
            starts[event.key, _samples(event)].append(event.line)
    for event in events:
        if event.key not in STARTS or not _has_samples(event):
            continue
        key = STARTS[event.key]
        lines = starts[key, _samples(event)]
        if lines and min(lines) > event.line:
            yield (
                f"line {event.line}: {event.key} at {_samples(event)} samples is before its "
                f"{key} on line {min(lines)}; expected it after"
            )


def _durations(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        for name, value in ({**as_table(event.value), **as_table(event.metadata)}).items():
            is_duration = any(word in name for word in DURATION_WORDS)
            if is_duration and _is_number(value) and value < 0:
                yield (f"line {event.line}: {name} of {event.key} is {value}; expected 0 or more")


def _outcome(events: Sequence[Event]) -> Iterator[str]:
    """Check that the status is "success" if and only if an evaluation reached the target."""
    start, stop = _only(events, "run_start"), _only(events, "run_stop")
    if start is None or stop is None:
        return
    status = stop.detail("status")
    target = next((e.value for e in events if e.key == "target_avg_lddt_ca_value"), None)
    target = target if _is_number(target) else DEFAULT_TARGET
    inside = [event for event in events if start.line < event.line < stop.line]
    scores = [e for e in inside if e.key == "eval_accuracy" and _is_number(e.value)]
    best = max(scores, key=lambda event: event.value, default=None)
    prefix = f"line {stop.line}: run_stop says {status}"
    if best is not None and best.value >= target and status != SUCCESS:
        yield (
            f"{prefix}, but eval_accuracy on line {best.line} is {best.value}, which reaches "
            f"the target {target}; expected {SUCCESS}"
        )
    if status != SUCCESS:
        return
    if best is None:
        yield f"{prefix}, but there is no eval_accuracy before it; expected one of {target} or more"
    elif best.value < target:
        yield (
            f"{prefix}, but the best eval_accuracy before it is {best.value} on line "
            f"{best.line}; expected {target} or more"
        )


def _clocks_agree(events: Sequence[Event]) -> Iterator[str]:
    """Check the duration against the monotonic clock, which only our own logs have."""
    start, stop = _only(events, "run_start"), _only(events, "run_stop")
    if start is None or stop is None or not (_has_time(start) and _has_time(stop)):
        return
    monotonic_seconds = stop.detail(MONOTONIC_KEY)
    if not _is_number(monotonic_seconds):
        return
    wall_seconds = (stop.time_ms - start.time_ms) / 1e3
    complaint = clock_disagreement(wall_seconds, monotonic_seconds)
    if complaint is not None:
        yield f"lines {start.line} and {stop.line}: {complaint}"


RULES: tuple[Callable[[Sequence[Event]], Iterator[str]], ...] = (
    _times,
    _time_order,
    _once,
    _clock_order,
    _duplicates,
    _cycles,
    _repeated_cycles,
    _intervals,
    _durations,
    _outcome,
    _clocks_agree,
)


def _only(events: Sequence[Event], key: str) -> Event | None:
    """Return the only event with this key; None if there is not exactly one."""
    matches = [event for event in events if event.key == key]
    return matches[0] if len(matches) == 1 else None


def _is_earlier(event: Event, other: Event) -> bool:
    return _has_time(event) and _has_time(other) and event.time_ms < other.time_ms


def _has_time(event: Event) -> bool:
    time_ms = event.time_ms
    return isinstance(time_ms, int) and not isinstance(time_ms, bool) and 0 <= time_ms < MAX_TIME_MS


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and not (isinstance(value, float) and not math.isfinite(value))


def _has_samples(event: Event) -> bool:
    """Return whether the event names the number of samples of its cycle."""
    return _is_number(event.detail("epoch_num"))


def _samples(event: Event) -> float:
    return event.detail("epoch_num")
