"""Preparation times of samples: a built-in list, and those of a record of `perf data`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.command_line import BenchmarkError
from benchmark.json_file import not_expected, read_json

BUILT_IN_SECONDS = (0.055,) * 30 + (0.09,) * 30 + (0.15,) * 20 + (0.3,) * 12 + (0.9,) * 7 + (7.7,)
"""Seconds per sample, distributed like those of the MLCommons reference on 88 real chains.

Most chains have few alignment rows; one in a hundred has 40,000.
"""


def read_times(path: Path, *, side: str) -> Sequence[float]:
    """Read the median preparation time of each chain, in seconds, from a `perf data` record."""
    expected = "a record of `perf data --json` with training samples"
    record = read_json(path, expected=expected)
    try:
        chains = record["figures"]["samples"]["training"]
        times = [float(np.median(chain[side])) for chain in chains.values() if side in chain]
        if not all(math.isfinite(seconds) and seconds > 0 for seconds in times):
            raise ValueError("a time is not a number > 0")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_expected(path, error, expected=expected) from error
    if not times:
        raise BenchmarkError(
            f"{path} has no times of --side {side}; measure them with --reference, or use the "
            "other --side"
        )
    return times
