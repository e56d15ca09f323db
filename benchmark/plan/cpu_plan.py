"""Seconds of a training step on CPUs, from its counts and the measured rates of a system."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.pass_counts import PassCounts
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.cpu_counts import CpuStepCounts, count_cpu_step
from benchmark.plan.cpu_rates import num_calls
from benchmark.plan.cpu_system import CpuSystem, sent_seconds
from openfold_opt.train.config import RunConfig
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.phases import Phase

_FLOAT_BYTES = 4
_ALL_REDUCE = "all-reduce"


@dataclass(frozen=True, kw_only=True)
class CpuPlan:
    """What is expected of a step of a phase."""

    preset: str
    phase: str
    system: str
    num_ranks: int
    dap: int
    batch: int
    """Samples of an optimizer step."""
    num_calls: float
    """PyTorch calls of a rank in a mean step, views included."""
    parts: dict[str, float]
    """Seconds of a mean optimizer step, by the parts of a step on a GPU (step_model.PARTS).

    Launches are what calls take besides their work.
    """
    seconds_by_iterations: dict[str, float]
    """Number of recycling iterations -> seconds of a step."""
    steps: int
    """Steps of the phase if it reaches its target with the last one."""
    warnings: list[str]

    @property
    def step_seconds(self) -> float:
        """Mean seconds of a step."""
        return sum(self.parts.values())


def plan_cpu_phase(
    phase: Phase,
    system: CpuSystem,
    num_ranks: int,
    *,
    preset: str,
    loader_seconds: float = 0.0,
) -> CpuPlan:
    """Plan a phase on a number of ranks with one thread each, none of which only evaluates.

    loader_seconds: what the samples of a micro-step take from a rank: its wait, or the time of its
    core that their preparation uses.

    Raises:
        BenchmarkError: The ranks cannot share the batch, a CPU cannot run the preset, or the
            system lacks a figure that is needed.
    """
    config = _on_ranks(phase.config, num_ranks)
    counts = count_cpu_step(config)
    most = config.data.max_recycling_iterations

    def parts(iterations: float) -> dict[str, float]:
        seconds = step_parts(counts, system, config, num_ranks=num_ranks, iterations=iterations)
        return seconds | {"loader": config.accumulation * loader_seconds}

    calls = [num_calls(each.calls) for each in (counts.gradient, counts.with_iteration)]
    mean_calls = config.accumulation * (calls[0] + most / 2 * (calls[1] - calls[0]))
    return CpuPlan(
        preset=preset,
        phase=phase.name,
        system=system.name,
        num_ranks=num_ranks,
        dap=config.parallel.dap_size,
        batch=num_ranks // config.parallel.dap_size * config.local_batch_size * config.accumulation,
        num_calls=mean_calls + num_calls(counts.optimizer),
        parts=parts(most / 2),
        seconds_by_iterations={
            str(number): sum(parts(number).values()) for number in range(most + 1)
        },
        steps=phase.settings.steps,
        warnings=_warnings(config, system, num_ranks),
    )


def step_parts(
    counts: CpuStepCounts,
    system: CpuSystem,
    config: RunConfig,
    *,
    num_ranks: int,
    iterations: float,
) -> dict[str, float]:
    """Return the seconds of an optimizer step by part."""
    rates = system.rates
    pairs = [_pass_seconds(each, system) for each in (counts.gradient, counts.with_iteration)]
    work, overhead, sent, waited = (
        config.accumulation * (one + iterations * (two - one))
        for one, two in zip(*pairs, strict=True)
    )
    # Ranks also meet at the all-reduce.
    slow = waited + system.wait_seconds if num_ranks > 1 else 0.0
    reduced = 0.0
    if num_ranks > 1:
        size = _FLOAT_BYTES * counts.num_parameters
        bucket = min(size, config.parallel.gradient_bucket_bytes)
        link = system.link(_ALL_REDUCE)
        each = (
            link.latency_seconds + 2 * (num_ranks - 1) / num_ranks * bucket / link.bytes_per_second
        )
        reduced = math.ceil(size / bucket) * each
    call_seconds = rates.call_seconds(counts.gradient.calls)
    optimizer = rates.work(counts.optimizer) + num_calls(counts.optimizer) * call_seconds
    return {
        "compute": work,
        "launches": overhead,
        "collectives": sent,
        "all-reduce": reduced,
        "optimizer": optimizer,
        "slow ranks": slow,
    }


def _pass_seconds(counts: PassCounts, system: CpuSystem) -> tuple[float, float, float, float]:
    """Return the seconds of a micro-step: work, rest of its calls, collectives, wait at them."""
    overhead = num_calls(counts.calls) * system.rates.call_seconds(counts.calls)
    waited = system.wait_seconds * sum(each.calls for each in counts.collectives)
    return system.rates.work(counts.calls), overhead, sent_seconds(counts, system), waited


def _on_ranks(config: RunConfig, num_ranks: int) -> RunConfig:
    """Return the configuration with the accumulation that the ranks use."""
    if config.parallel.num_evaluation_ranks:
        raise BenchmarkError(
            f"{config.parallel.num_evaluation_ranks} ranks of the preset only evaluate, which is "
            "not planned on a CPU; plan a preset whose ranks all train, such as demo"
        )
    try:
        return check_global_batch(config, num_ranks)
    except ValueError as error:
        raise BenchmarkError(f"--gpus {num_ranks}: {error}") from error


def _warnings(config: RunConfig, system: CpuSystem, num_ranks: int) -> list[str]:
    found = list(system.warnings)
    if num_ranks > system.num_cores:
        found.append(
            f"{num_ranks} ranks share {system.num_cores} cores: each takes longer than planned"
        )
    if num_ranks != system.num_processes:
        found.append(
            f"the rates were measured with {system.num_processes} processes at the same time, and "
            f"{num_ranks} ranks share the memory of the machine"
        )
    return found


def cpu_plan_json(plan: CpuPlan) -> dict[str, Any]:
    """Return every number of a plan."""
    return asdict(plan) | {"step_seconds": plan.step_seconds}


def describe_cpu_plan(plan: CpuPlan) -> str:
    """Format the table of a plan."""
    rows = [
        [name, f"{1e3 * seconds:,.1f}", f"{seconds / plan.step_seconds:.1%}"]
        for name, seconds in plan.parts.items()
    ]
    times = ", ".join(f"{n}: {1e3 * each:,.1f}" for n, each in plan.seconds_by_iterations.items())
    return "\n".join(
        [
            f"{plan.preset}, {plan.phase}, on {plan.num_ranks} ranks of {plan.system}, DAP "
            f"{plan.dap}; batch {plan.batch}; {plan.num_calls:,.0f} PyTorch calls a step",
            *(f"WARNING: {warning}" for warning in plan.warnings),
            table(
                [*rows, ["step", f"{1e3 * plan.step_seconds:,.1f}", ""]],
                header=["part of a step", "ms", ""],
            ),
            f"ms by recycling iterations {times}; {plan.steps:,} steps at most, "
            f"{plan.steps * plan.step_seconds:,.0f} s without evaluation and start",
        ]
    )
