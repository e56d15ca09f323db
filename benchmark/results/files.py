"""Write sets of runs as CSV, one row per set, and as JSON, with every run.

Names and units are those of Metrics.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from benchmark.results.gather import Rejection
from benchmark.results.logged_run import LoggedRun
from benchmark.results.metrics import Metrics, step_seconds


def as_csv(metrics: Sequence[Metrics]) -> str:
    """Return CSV with a row per set. Unknown values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Metrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(each) for each in metrics)
    return text.getvalue()


def as_json(
    metrics: Sequence[Metrics], runs: Sequence[Sequence[LoggedRun]], rejections: Sequence[Rejection]
) -> str:
    """Return JSON with all sets. runs: the runs of each set, in the order of metrics."""
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


def _run(run: LoggedRun) -> dict[str, object]:
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
