"""Samples of the reference convergence points, read without loading mlperf-logging's checker.

The checker imports scipy, which takes as long as the rest of a plan. `reference_points` has what
the checker derives from these samples.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from benchmark.mlperf.check import RULESET, USAGE
from benchmark.results.logged_run import BENCHMARK


@lru_cache(maxsize=1)
def reference_samples() -> Mapping[int, tuple[int, ...]]:
    """Return the samples of each run of the MLCommons reference by batch size, both ascending."""
    spec = importlib.util.find_spec("mlperf_logging")
    assert spec is not None and spec.origin is not None, "mlperf-logging is a dependency"
    folder = Path(spec.origin).parent / "rcp_checker" / f"{USAGE}_{RULESET}"
    records = json.loads((folder / f"rcps_{BENCHMARK}.json").read_text(encoding="utf-8")).values()
    # mlperf-logging calls the unit epochs; for this benchmark, they are samples.
    samples = {record["BS"]: tuple(sorted(record["Epochs to converge"])) for record in records}
    return dict(sorted(samples.items()))
