"""Time of PyTorch calls on a CPU: their work by operator, and what each takes besides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.perf.tools.call_trace import VIEW, CallGroup

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
class CallOverhead:
    """What the calls of a measured step take besides their work."""

    bytes_per_call: float
    """Mean of the step, views included."""
    seconds: float
    """Of any call: Python, autograd, the call itself, and work that the rates do not explain."""


@dataclass(frozen=True, kw_only=True)
class CpuRates:
    """What a processor takes for the calls of a step, as measured while all ranks compute."""

    overheads: list[CallOverhead]
    """By bytes. Large calls remove the data and code of others from the caches."""
    operators: dict[str, WorkRate]
    others: WorkRate
    """Of operators that are not listed, except products."""

    def work(self, groups: Iterable[CallGroup]) -> float:
        """Return the seconds of the work of all calls."""
        return sum(
            group.calls * self.operators.get(group.operator, self.others).seconds(group)
            for group in groups
            if group.operator != VIEW
        )

    def call_seconds(self, groups: Sequence[CallGroup]) -> float:
        """Return the seconds of a call besides its work, in a step with these calls.

        Interpolated between the overheads by the bytes of a call.
        """
        known = [(each.bytes_per_call, each.seconds) for each in self.overheads]
        return float(np.interp(bytes_per_call(groups), *zip(*known, strict=True)))

    def seconds(self, groups: Sequence[CallGroup]) -> float:
        """Return the seconds of all calls."""
        return self.work(groups) + num_calls(groups) * self.call_seconds(groups)


@dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """A step whose calls were timed."""

    calls: list[CallGroup]
    seconds: float
    """Of the whole step, without timing its calls."""


def fit_rates(steps: Sequence[MeasuredStep]) -> CpuRates:
    """Fit the rates of each operator to the timed calls of all steps, and the rest to each step.

    The constant of a timed call is fitted, too, but not used: it contains the measurement.
    """
    by_operator: dict[str, list[CallGroup]] = {}
    for group in (group for step in steps for group in step.calls):
        if group.operator != VIEW:
            by_operator.setdefault(group.operator, []).append(group)
    others = [group for each in by_operator.values() for group in each if not group.flops]
    rates = CpuRates(
        overheads=[],
        operators={
            name: _fit(groups)
            for name, groups in sorted(by_operator.items())
            if any(group.flops for group in groups)
            or sum(group.calls for group in groups) >= _LEAST_CALLS
        },
        others=_fit(others),
    )
    overheads = [
        CallOverhead(
            bytes_per_call=bytes_per_call(step.calls),
            seconds=max(0.0, step.seconds - rates.work(step.calls)) / num_calls(step.calls),
        )
        for step in steps
    ]
    return dataclasses.replace(
        rates, overheads=sorted(overheads, key=lambda each: each.bytes_per_call)
    )


def num_calls(groups: Iterable[CallGroup]) -> int:
    """Return the calls, views included."""
    return sum(group.calls for group in groups)


def bytes_per_call(groups: Sequence[CallGroup]) -> float:
    """Return the mean bytes of a call."""
    return max(1.0, sum(group.calls * group.bytes for group in groups) / num_calls(groups))


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
