"""Read the events of an MLPerf log, one on each line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = ":::MLLOG "
CONTINUED_KEY = "run_continued"
"""Our own key: this process continued a run that another process started. The value counts them."""
MONOTONIC_KEY = "monotonic_seconds"
"""Our own field in the metadata of run_stop: seconds since run_start by the monotonic clock."""
EVENT_KEYS = {"namespace", "time_ms", "event_type", "key", "value", "metadata"}


def read_events(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the events of a log, and complaints about damaged lines.

    An event has EVENT_KEYS and "line", the number of its line, from 1. A line may have a prefix
    before the event, such as the rank of a launcher, but only one event and nothing after it.
    """
    events, damage = [], []
    # not str.splitlines: a text in JSON may contain U+2028, and others of its line ends
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        if MARK not in line:
            continue
        count = line.count(MARK.strip())
        if count > 1:
            damage.append(
                f"line {number} has {count} events (found {MARK.strip()} {count} times); expected "
                "one event on a line: two writers shared the file, or a line end is missing"
            )
            continue
        event, complaint = _read_event(line.partition(MARK)[2])
        if complaint is None:
            events.append(event | {"line": number})
        else:
            damage.append(f"line {number} is not a complete event: {complaint}")
    return events, damage


def _read_event(text: str) -> tuple[dict[str, Any], str | None]:
    """Return the event and None, or an empty table and what is wrong with it."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, str(error)
    if not isinstance(event, dict) or not event.keys() >= EVENT_KEYS:
        return {}, f"expected {', '.join(sorted(EVENT_KEYS))}"
    if not isinstance(event["key"], str):
        return {}, f"an event has the key {event['key']!r}, expected text"
    return event, None


def as_table(value: Any) -> dict[str, Any]:
    """Return a value or the metadata of an event as a table; empty if it is none."""
    return value if isinstance(value, dict) else {}
