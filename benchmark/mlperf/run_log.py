"""Read an MLPerf log: its events, one per line, and its damaged lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

MARK = ":::MLLOG "
"""Text before the JSON of an event."""
CONTINUED_KEY = "run_continued"
"""Our own key: this process resumed a run. The value is the number of resumptions."""
MONOTONIC_KEY = "monotonic_seconds"
"""Our own field in the metadata of run_stop: seconds since run_start on the monotonic clock."""
EVENT_KEYS = ("event_type", "key", "metadata", "namespace", "time_ms", "value")


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event of a log. Everything but the key may have any JSON value in a damaged log."""

    line: int
    """Number of its line, counted from 1."""
    namespace: Any
    time_ms: Any
    event_type: Any
    key: str
    value: Any
    metadata: Any

    def detail(self, name: str) -> Any:
        """Return a value of the metadata, or None."""
        return as_table(self.metadata).get(name)


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """The log of one process."""

    path: Path
    events: tuple[Event, ...]
    damage: tuple[str, ...] = ()
    """Errors of damaged lines, which are skipped."""

    @classmethod
    def read(cls, path: Path) -> RunLog:
        """Read a log. Raises OSError if the file cannot be read.

        A line may have a prefix, such as the rank that a launcher adds, and must end with its only
        event.
        """
        events, damage = [], []
        # Not str.splitlines(), which also splits at U+2028 and others that JSON text may contain.
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), start=1):
            if MARK not in line:
                continue
            count = line.count(MARK.strip())
            if count > 1:
                damage.append(
                    f"line {number} has {count} events (found {MARK.strip()} {count} times); "
                    "expected one event on a line: two writers shared the file, or a line end is "
                    "missing"
                )
                continue
            try:
                events.append(_read_event(line.partition(MARK)[2], line=number))
            except (ValueError, RecursionError) as error:
                damage.append(f"line {number} is not a complete event: {error}")
        return cls(path=path, events=tuple(events), damage=tuple(damage))

    def select(self, key: str) -> list[Event]:
        """Return the events with a key, in the order of the log."""
        return [event for event in self.events if event.key == key]

    def first(self, key: str) -> Event | None:
        """Return the first event with a key, or None."""
        return next(iter(self.select(key)), None)

    def last(self, key: str) -> Event | None:
        """Return the last event with a key, or None."""
        return next(reversed(self.select(key)), None)

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """Key -> first value of its events that is not null."""
        return {e.key: e.value for e in reversed(self.events) if e.value is not None}


def _read_event(text: str, *, line: int) -> Event:
    """Raises ValueError for an incomplete event, and RecursionError for JSON that is too deep."""
    event = json.loads(text)
    if not isinstance(event, dict) or not event.keys() >= set(EVENT_KEYS):
        raise ValueError(f"expected {', '.join(EVENT_KEYS)}")
    if not isinstance(event["key"], str):
        raise ValueError(f"an event has the key {event['key']!r}, expected text")
    return Event(line=line, **{key: event[key] for key in EVENT_KEYS})


def as_table(value: Any) -> Mapping[str, Any]:
    """Return a value if it is a dict, else an empty dict."""
    return value if isinstance(value, dict) else {}
