"""One-line summaries of `perf` records, for the table of results.

Each measurement formats its own summary; this module calls the one for a record.
"""

from __future__ import annotations

import importlib
from typing import Any

from benchmark.perf.command import MEASUREMENTS
from benchmark.perf.tools.perf_record import from_json

PLACEHOLDER = "see the record"


def headline(measurement: str, figures: dict[str, Any]) -> str:
    """Return the summary of a record, or a placeholder if its format or measurement is unknown.

    Args:
        measurement: Name of the measurement.
        figures: Metrics of the record as JSON, complete or not. The record may be older than the
            present format of the metrics.
    """
    if measurement not in MEASUREMENTS:
        return PLACEHOLDER
    try:
        module = importlib.import_module(f"benchmark.perf.{measurement}")
        return module.headline(from_json(module.METRICS, figures))
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError):
        return PLACEHOLDER
