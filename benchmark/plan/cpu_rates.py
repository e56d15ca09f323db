"""Time of PyTorch calls on a CPU: a constant for each call, and its work by operator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.perf.tools.call_trace import VIEW, CallGroup
from benchmark.plan.step_model import JITTER

NEAR_BYTES = 2**20
"""The first bytes of a call, which the second-level cache may hold, have a rate of their own."""
_LEAST_CALLS = 40
"""Operators with fewer calls have the rates of all others together."""
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True, kw_only=True)
class WorkRate:
    """Work of the calls of an operator: the sum of its parts. 0 if a part takes no time."""

    seconds_per_near_byte: float
    seconds_per_far_byte: float
    """Of the bytes after the first NEAR_BYTES."""
    seconds_per_flop: float
    """Of matrix products."""
    seconds_per_loop: float
    """Of inner loops after the first (perf/tools/call_trace.py)."""

    def seconds(self, group: CallGroup) -> float:
        """Return the time of the work of a call."""
        return float(np.dot(_sizes(group), list(vars(self).values())))


@dataclass(frozen=True, kw_only=True)
class CpuRates:
    """What a processor takes for the calls of a step, as measured while all ranks compute."""

    forward_call_seconds: float
    backward_call_seconds: float
    """Of any call, views included, besides its work: Python, autograd and the call itself."""
    operators: dict[str, WorkRate]
    others: WorkRate
    """Of operators that are not listed, except products."""
    step_deviation: float = JITTER
    """Standard deviation of a rank's time for a step, as a share of it. The first records do not
    have it, and used that of a GPU."""

    def work(self, group: CallGroup) -> float:
        """Return the seconds of the work of all calls of a group."""
        if group.operator == VIEW:
            return 0.0
        return group.calls * self.operators.get(group.operator, self.others).seconds(group)

    def overhead(self, groups: Iterable[CallGroup]) -> float:
        """Return the seconds of the calls besides their work."""
        each = {"forward": self.forward_call_seconds, "backward": self.backward_call_seconds}
        return sum(group.calls * each[group.direction] for group in groups)


def fit_rates(
    calls: Sequence[CallGroup],
    small_calls: Sequence[CallGroup],
    small_seconds: Mapping[str, float],
    step_deviation: float,
) -> CpuRates:
    """Fit the rates of each operator to its timed calls, and the rest to the small step.

    The constant of a timed call is fitted, too, but not used: it contains the measurement.

    calls, small_calls: groups with times. small_seconds: of the whole small step, by direction.
    """
    by_operator: dict[str, list[CallGroup]] = {}
    for group in (*calls, *small_calls):
        if group.operator != VIEW:
            by_operator.setdefault(group.operator, []).append(group)
    others = [group for each in by_operator.values() for group in each if not group.flops]
    operators = {
        name: _fit(groups)
        for name, groups in sorted(by_operator.items())
        if any(group.flops for group in groups)
        or sum(group.calls for group in groups) >= _LEAST_CALLS
    }
    rates = CpuRates(
        forward_call_seconds=0.0,
        backward_call_seconds=0.0,
        step_deviation=step_deviation,
        operators=operators,
        others=_fit(others),
    )
    rest = {}
    for direction, seconds in small_seconds.items():
        groups = [group for group in small_calls if group.direction == direction]
        rest[direction] = max(0.0, seconds - sum(map(rates.work, groups))) / sum(
            group.calls for group in groups
        )
    return dataclasses.replace(
        rates, forward_call_seconds=rest["forward"], backward_call_seconds=rest["backward"]
    )


def _sizes(group: CallGroup) -> list[float]:
    near = min(group.bytes, NEAR_BYTES)
    return [near, group.bytes - near, group.flops, max(0.0, group.loops - 1)]


def _fit(groups: Sequence[CallGroup]) -> WorkRate:
    """Fit by least squares without negative rates.

    The variance of a time is taken as proportional to it, so that neither many small calls nor few
    large ones decide alone.
    """
    rows = np.array([[1.0, *_sizes(group)] for group in groups])
    seconds = np.array([max(group.seconds, _LEAST_SECONDS) for group in groups])
    weights = np.sqrt([group.calls for group in groups] / seconds)
    rates = nonnegative_least_squares(rows * weights[:, None], seconds * weights)[1:]
    return WorkRate(**dict(zip(WorkRate.__dataclass_fields__, map(float, rates), strict=True)))


def nonnegative_least_squares(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return x without negative values that minimizes |matrix x - values|, approximately.

    The most negative value is set to 0 until there is none.
    """
    scale = np.abs(matrix).max(axis=0)
    used = [column for column, size in enumerate(scale) if size > 0]
    result = np.zeros(matrix.shape[1])
    while used:
        found = np.linalg.lstsq(matrix[:, used] / scale[used], values, rcond=None)[0]
        if found.min() >= 0:
            result[used] = found / scale[used]
            break
        used.pop(int(np.argmin(found)))
    return result


def explained_share(rates: CpuRates, calls: Sequence[CallGroup]) -> float:
    """Return modeled / measured time of the calls that move more than NEAR_BYTES.

    The constants of the timed calls are not in the rates, so small calls are left out.
    """
    large = [group for group in calls if group.bytes >= NEAR_BYTES]
    measured = sum(group.calls * group.seconds for group in large)
    return sum(map(rates.work, large)) / measured if measured else math.nan
