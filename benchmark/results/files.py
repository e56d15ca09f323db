"""Sets of runs as CSV, one row per set, and as JSON, with every run; names and units as in Figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from benchmark.results.gather import Rejection
from benchmark.results.metrics import Metrics, step_seconds
from benchmark.results.run_log import RunLog


def as_csv(metrics: Sequence[Metrics]) -> str:
    """An empty cell where the logs do not tell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Metrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(each) for each in metrics)
    return text.getvalue()


def as_json(
    metrics: Sequence[Metrics], runs: Sequence[Sequence[RunLog]], rejections: Sequence[Rejection]
) -> str:
    """runs: those of each set, in the order of figures."""
    content = {
        "sets": [
            asdict(each) | {"each_run": [_run(run) for run in members]}
            for each, members in zip(metrics, runs, strict=True)
        ],
        "left_out": [
            {"path": str(rejection.path), "reason": rejection.reason} for rejection in rejections
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _run(run: RunLog) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "seed": run.seed,
        "status": run.status,
        "minutes": run.minutes,
        "samples": run.samples if run.evaluations else None,
        "seconds_per_step_by_cycle": step_seconds(run),
        "data_wait_seconds_per_step_by_cycle": list(run.data_waits),
        "evaluations": [
            {
                "samples": each.samples,
                "lddt_ca": each.lddt_ca,
                "start_seconds": each.start,
                "stop_seconds": each.stop,
            }
            for each in run.evaluations
        ],
    }
