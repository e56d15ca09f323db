"""One-line summaries of `perf` records, for the table of results.

Each measurement formats its own summary; this module calls the one for a record.
"""

from __future__ import annotations

import importlib
from typing import Any

from benchmark.perf.command import MEASUREMENTS
from benchmark.perf.tools.perf_record import from_json

PLACEHOLDER = "see the record"
_OTHER_MODULES = {"plan_local": "benchmark.plan.local_command"}
"""Measurements that are no measurement of `perf`, with modules like those of `perf`."""


def headline(measurement: str, figures: dict[str, Any]) -> str:
    """Return the summary of a record, or a placeholder if its format or measurement is unknown.

    Args:
        measurement: Name of the measurement.
        figures: Metrics of the record as JSON, complete or not. The record may be older than the
            present format of the metrics.
    """
    modules = _OTHER_MODULES | {name: f"benchmark.perf.{name}" for name in MEASUREMENTS}
    if measurement not in modules:
        return PLACEHOLDER
    try:
        module = importlib.import_module(modules[measurement])
        return module.headline(from_json(module.METRICS, figures))
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError):
        return PLACEHOLDER
