"""Read the events of an MLPerf log, one event per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = ":::MLLOG "
CONTINUED_KEY = "run_continued"
"""Our own key: this process resumed a run. The value is the number of resumptions."""
MONOTONIC_KEY = "monotonic_seconds"
"""Our own field in the metadata of run_stop: seconds since run_start on the monotonic clock."""
EVENT_KEYS = {"namespace", "time_ms", "event_type", "key", "value", "metadata"}


def read_events(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the events of a log, and errors of damaged lines.

    An event has EVENT_KEYS and "line", the number of its line, counted from 1. A line may have a
    prefix, such as the rank that a launcher adds, and must end with its only event.
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
    """Return the event and None, or an empty dict and an error message."""
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
    """Return a value if it is a dict, else an empty dict."""
    return value if isinstance(value, dict) else {}
