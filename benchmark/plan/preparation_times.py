"""The distribution of the seconds that a worker takes to prepare a sample."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmark.perf.tools.sample_times import read_times

Shape = Literal["measured", "lognormal"]
"""The measured times themselves, or a lognormal distribution with their mean and spread."""
Side = Literal["reference", "ours"]
STORED_TIMES = Path(__file__).with_name("sample_times.json")
"""Times of real chains, with their source."""
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True, kw_only=True)
class PreparationTimes:
    """Measured times of samples, and how to draw from them."""

    source: str
    """Where the times come from."""
    seconds: tuple[float, ...]
    """Ascending; one time for each measured chain."""
    shape: Shape = "measured"
    """A lognormal distribution has samples slower than any measured one. With hundreds of ranks
    such samples decide the time of a step, but few measured chains say how frequent they are."""

    @property
    def mean_seconds(self) -> float:
        """Mean of the drawn times."""
        if self.shape == "measured":
            return float(np.mean(self.seconds))
        mean, deviation = self.log_moments()
        return math.exp(mean + deviation**2 / 2)

    def log_moments(self) -> tuple[float, float]:
        """Return mean and standard deviation of the logarithms of the times."""
        logarithms = np.log(self.seconds)
        return float(logarithms.mean()), float(logarithms.std())

    def scaled(self, factor: float) -> PreparationTimes:
        """Return the times on a processor that takes `factor` times as long."""
        seconds = tuple(factor * second for second in self.seconds)
        return dataclasses.replace(self, seconds=seconds)

    def draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """Draw independent times in seconds."""
        if self.shape == "measured":
            return np.asarray(self.seconds)[generator.integers(len(self.seconds), size=size)]
        mean, deviation = self.log_moments()
        return generator.lognormal(mean, deviation, size)

    def as_json(self) -> dict[str, object]:
        """Return source, quantiles and fit, for a record."""
        mean, deviation = self.log_moments()
        return {
            "source": self.source,
            "shape": self.shape,
            "chains": len(self.seconds),
            "mean_seconds": self.mean_seconds,
            "quantiles": {
                str(share): float(np.quantile(self.seconds, share)) for share in _QUANTILES
            },
            "log_mean": mean,
            "log_deviation": deviation,
        }


def preparation_times(
    path: Path | None, *, side: Side, shape: Shape = "measured"
) -> PreparationTimes:
    """Return the times of a record of `perf data`, or the stored ones.

    Args:
        path: the record; None: STORED_TIMES.
        side: whose times: those of this project, or of the MLCommons reference on the same chains.
        shape: distribution to draw from.
    """
    if path is None:
        stored = json.loads(STORED_TIMES.read_text(encoding="utf-8"))
        seconds, source = stored[side], f"{stored['source']} ({side})"
    else:
        seconds, source = read_times(path, side=side), f"{path} ({side})"
    return PreparationTimes(source=source, seconds=tuple(sorted(seconds)), shape=shape)
