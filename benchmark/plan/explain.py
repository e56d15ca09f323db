"""Where the time of a measured run, or of the steps of a record, went."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import not_expected, read_json
from benchmark.plan.bars import Bar
from benchmark.run.phase_record import read_phase_records

QUIET_SHARE = 0.1
"""The time of a step without disturbance is this quantile of the steps with as many iterations, in
the same phase."""
QUIET_NOTE = (
    "compute: what a step takes in the quietest tenth of the steps of its phase with as many "
    "recycling iterations, with launches and collectives; slow ranks: what the others take longer"
)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What is read of a line of steps.jsonl."""

    number: int
    num_iterations: int
    seconds: float
    wait: float
    """Seconds of the step in which it waits for data."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Bars of a mean step and of a whole run."""

    source: str
    num_steps: int
    step: Bar
    optimal: Bar
    run: dict[str, float]
    """Part of the run -> seconds; empty for a record."""
    notes: list[str]


def explain(path: Path) -> Explanation:
    """Explain an output directory of a run, or a record of `perf step`.

    Raises:
        BenchmarkError: It is neither, or has no steps.
    """
    if path.is_dir():
        return _explain_run(path)
    return _explain_record(path)


def _explain_run(folder: Path) -> Explanation:
    steps, notes = _read_steps(folder / "steps.jsonl")
    if not steps:
        raise BenchmarkError(f"{folder}: no steps in steps.jsonl; expected the directory of a run")
    phases = read_phase_records(folder)
    by_kind: dict[tuple[int, int], list[_Step]] = {}
    for step in steps:
        phase = sum(step.number > each.steps_before for each in phases)
        by_kind.setdefault((phase, step.num_iterations), []).append(step)
    quiet = {
        kind: _quantile([step.seconds - step.wait for step in group], QUIET_SHARE)
        for kind, group in by_kind.items()
    }
    least = sum(len(group) * quiet[kind] for kind, group in by_kind.items()) / len(steps)
    total = statistics.fmean(step.seconds for step in steps)
    loader = statistics.fmean(step.wait for step in steps)
    notes.insert(0, QUIET_NOTE)
    return Explanation(
        source=str(folder),
        num_steps=len(steps),
        step=Bar(
            label="measured step",
            seconds={"compute": least, "loader": loader, "slow ranks": total - loader - least},
        ),
        optimal=Bar(label="optimal", seconds={"compute": least}),
        run=_run_parts(folder, total * len(steps), notes),
        notes=notes,
    )


def _read_steps(path: Path) -> tuple[list[_Step], list[str]]:
    """Return the steps in order, and notes on what was left out.

    A resumed run repeats the steps after its checkpoint; the last line of a step counts.
    """
    lines, num_damaged = _read_lines(path)
    by_number: dict[int, _Step] = {}
    for line in lines:
        try:
            step = _Step(
                number=int(line["step"]),
                num_iterations=int(line["num_recycling_iterations"]),
                seconds=float(line["step_time_seconds"]),
                wait=float(line["data_wait_seconds"]),
            )
        except (ValueError, KeyError, TypeError):
            num_damaged += 1
            continue
        if math.isfinite(step.seconds) and math.isfinite(step.wait):
            by_number[step.number] = step
        else:
            num_damaged += 1
    notes = [f"{num_damaged} damaged lines of {path.name} are left out"] if num_damaged else []
    return [by_number[number] for number in sorted(by_number)], notes


def _run_parts(folder: Path, steps_seconds: float, notes: list[str]) -> dict[str, float]:
    """Return the seconds of the parts of the run, and add notes on them."""
    lines, num_damaged = _read_lines(folder / "evaluations.jsonl")
    evaluation = sum(float(each.get("seconds") or 0) for each in lines)
    if num_damaged:
        notes.append(f"{num_damaged} damaged lines of evaluations.jsonl are left out")
    parts = {"steps": steps_seconds, "evaluation": evaluation}
    path = folder / "run.json"
    state = read_json(path, expected="the state of a run") if path.exists() else {}
    clock = state.get("clock") if isinstance(state, dict) else None
    if clock is None:
        notes.append("the run has not ended, so its start and rest are unknown")
    elif state.get("continued"):
        notes.append("the run was resumed, so its start and rest are unknown")
    else:
        rest = clock["monotonic_seconds"] - steps_seconds - evaluation
        if rest < 0:
            notes.append("evaluation and training overlapped")
        parts["start and rest"] = max(0.0, rest)
    return parts


def _explain_record(path: Path) -> Explanation:
    expected = "an output directory of a run, or a record that `perf step --json` wrote"
    record = read_json(path, expected=expected)
    try:
        figures = record["figures"]
        if record["measurement"] != "step":
            raise BenchmarkError(
                f"{path} is a record of `perf {record['measurement']}`; expected one of `perf step`"
            )
        times = {int(n): sides["ours"]["seconds"] for n, sides in figures["passes"].items()}
        if not times or not all(times.values()):
            raise ValueError("no steps")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_expected(path, error, expected=expected) from error
    least = statistics.fmean(_quantile(seconds, QUIET_SHARE) for seconds in times.values())
    total = statistics.fmean(statistics.fmean(seconds) for seconds in times.values())
    notes, optimal = [], least
    rate, flops = figures.get("matmul_flops_per_second"), figures.get("flops")
    if rate and flops:
        optimal = statistics.fmean(flops[str(number)] / rate for number in times)
        notes.append("optimal: the operations of the step at the measured rate of large products")
    return Explanation(
        source=str(path),
        num_steps=sum(map(len, times.values())),
        step=Bar(label="measured step", seconds={"compute": least, "slow ranks": total - least}),
        optimal=Bar(label="optimal", seconds={"compute": optimal}),
        run={},
        notes=notes,
    )


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the objects of a file of JSON lines, and the number of damaged lines.

    A process that dies may leave an incomplete line, after which a resumed run writes more.
    """
    if not path.exists():
        return [], 0
    values, num_damaged = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            values.append(value)
        else:
            num_damaged += 1
    return values, num_damaged


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * len(values))]
