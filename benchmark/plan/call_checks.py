"""Checks of the steps in records of `perf kernels --calls` and `perf comm --steps`.

JSON files may have NaN or negative numbers, which the fit of the rates would accept.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.perf.tools.call_trace import CallGroup
from benchmark.perf.tools.pass_counts import CpuCollective
from benchmark.perf.tools.step_calls import ShardedStep, StepCalls
from benchmark.plan.system_checks import Range, check_line, check_number, check_whole

_CALLS: Range = (1, 10**9)
_SIZES: Range = (0, 10**18)
"""Of bytes, operations and inner loops."""
_SECONDS: Range = (1e-9, 1e5)
_COUNTED_SECONDS: Range = (0.0, 1e5)
"""Of calls that need not have been timed."""


def check_steps(steps: Sequence[StepCalls]) -> None:
    """Raise ValueError that names a figure that no timed step can have."""
    for index, step in enumerate(steps):
        where = f"calls[{index}]"
        _check_calls(f"{where}.calls", step.calls, _SECONDS)
        _check_seconds(f"{where}.seconds", step.seconds)
        check_number(f"{where}.waited_share", step.waited_share, (0.0, 1.0))


def check_sharded_steps(steps: Sequence[ShardedStep]) -> None:
    """Raise ValueError that names a figure that no sharded step can have."""
    _check_filled("sharded_steps", steps)
    for index, step in enumerate(steps):
        where = f"sharded_steps[{index}]"
        _check_calls(f"{where}.counts.calls", step.counts.calls, _COUNTED_SECONDS)
        _check_collectives(f"{where}.counts.collectives", step.counts.collectives)
        _check_seconds(f"{where}.seconds", step.seconds)


def _check_calls(where: str, groups: Sequence[CallGroup], seconds: Range) -> None:
    _check_filled(where, groups)
    for index, group in enumerate(groups):
        name = f"{where}[{index}]"
        check_line(f"{name}.operator", group.operator)
        check_whole(f"{name}.calls", group.calls, _CALLS)
        for field in ("bytes", "flops", "loops"):
            check_number(f"{name}.{field}", getattr(group, field), _SIZES)
        check_number(f"{name}.seconds", group.seconds, seconds)


def _check_collectives(where: str, collectives: Sequence[CpuCollective]) -> None:
    _check_filled(where, collectives)
    for index, each in enumerate(collectives):
        name = f"{where}[{index}]"
        check_line(f"{name}.kind", each.kind)
        check_whole(f"{name}.sent_bytes", each.sent_bytes, _SIZES)
        check_whole(f"{name}.calls", each.calls, _CALLS)


def _check_seconds(where: str, seconds: Sequence[float]) -> None:
    _check_filled(where, seconds)
    for index, value in enumerate(seconds):
        check_number(f"{where}[{index}]", value, _SECONDS)


def _check_filled(where: str, values: Sequence[object]) -> None:
    if not values:
        raise ValueError(f"{where} is empty")
