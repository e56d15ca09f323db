"""Tables and JSON of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmark.perf.tools.timing_stats import table
from benchmark.plan.systems import System
from benchmark.plan.train_plan import TargetTime, TrainPlan

_GB = 1e9


def plan_json(plan: TrainPlan) -> dict[str, Any]:
    """Return every number of a plan."""
    return asdict(plan) | {"memory_bytes": None if plan.memory is None else plan.memory.total}


def describe_plan(plan: TrainPlan, system: System) -> str:
    """Format the tables of one phase."""
    layout, step = plan.layout, plan.step
    blocks = [
        f"{plan.preset}, {plan.phase}, on {layout.num_gpus} GPUs of {system.name}: "
        f"{layout.data_parallel} x DAP {layout.dap} train, {layout.evaluation_ranks} evaluate; "
        f"batch {plan.batch} = {layout.data_parallel} x {layout.local_batch} x "
        f"{layout.accumulation}; {layout.code}",
        *(f"WARNING: {warning}" for warning in plan.warnings),
        table(
            [
                [name, f"{1e3 * seconds:,.1f}", f"{seconds / step.total:.1%}"]
                for name, seconds in step.parts.items()
            ]
            + [["step", f"{1e3 * step.total:,.1f}", ""]]
            + [["compute at peak rates", f"{1e3 * step.ideal:,.1f}", ""]],
            header=["part of a step", "ms", ""],
        ),
        f"{step.total:.3f} s per step ({plan.least_step_seconds:.3f} with compute at peak rates, "
        f"{plan.most_step_seconds:.3f} with the largest factor of another code base); "
        + ", ".join(f"{n}: {seconds:.3f}" for n, seconds in plan.seconds_by_iterations.items())
        + " s by recycling iterations",
        f"{plan.petaflops:.2f} PFLOP/s, {plan.share_of_peak:.1%} of peak, parallel efficiency "
        f"{plan.parallel_efficiency:.0%}",
        _memory(plan),
        f"evaluation every {plan.evaluation.every_steps} steps, {plan.evaluation.seconds:.1f} s, "
        + ("while training continues" if plan.evaluation.is_concurrent else "training waits"),
        "time to the target: not known for this preset"
        if plan.target is None
        else _target(plan.target),
    ]
    return "\n".join(block for block in blocks if block)


def describe_sum(plans: Sequence[TrainPlan]) -> str:
    """Format the sum over the phases."""
    targets = [plan.target for plan in plans if plan.target is not None]
    seconds = sum(target.seconds for target in targets)
    hours = sum(target.gpu_hours for target in targets)
    return f"all phases: {_duration(seconds)}, {hours:,.1f} GPU-hours"


def _memory(plan: TrainPlan) -> str:
    need = plan.memory
    if need is None:
        return "memory: not counted for this code base"
    return (
        f"memory: {need.total / _GB:.1f} of {need.available / _GB:.0f} GB a GPU: "
        f"{need.state / _GB:.1f} parameters and optimizer, {need.graphs / _GB:.1f} graphs, "
        f"{need.step / _GB:.1f} step with {need.recomputed_blocks} recomputed blocks"
    )


def _target(target: TargetTime) -> str:
    parts = target.parts
    name = "all steps" if target.target is None else f"to {target.target:g}"
    text = (
        f"{name}: {_duration(target.seconds)} "
        f"({_duration(target.least_seconds)} to {_duration(target.most_seconds)}) for "
        f"{target.samples:,.0f} samples{', extrapolated' if target.is_extrapolated else ''}: "
        f"steps {_duration(parts.steps)}, evaluation {_duration(parts.evaluation)}, start "
        f"{_duration(parts.start)}; {target.gpu_hours:,.1f} GPU-hours"
    )
    if target.energy_kwh is not None:
        text += f", at most {target.energy_kwh:,.1f} kWh"
    if target.cost is not None:
        text += f", {target.cost:,.0f} {target.currency}"
    return text


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
