"""Systems with the rates that `perf kernels` and `perf comm` measured, of GPUs and of CPUs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import not_expected, read_json
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.roofline import EFFICIENCIES
from benchmark.perf.tools.step_calls import ShardedStep, StepCalls
from benchmark.plan.cpu_rates import CpuRates, MeasuredStep, fit_rates
from benchmark.plan.cpu_system import CpuSystem, name_of, sent_seconds
from benchmark.plan.explain import QUIET_SHARE
from benchmark.plan.systems import Link, System

MEMORY_CLASSES = ("memory", "pytorch")
"""Classes of launches that only move data; the others are bound by matrix products."""
_LEAST_LATENCY_SECONDS = 1e-9
_MOST_WAITED_SHARE = 0.1
"""Of a step of a calibration. On cores without other processes, it is 2 to 6 %."""
_LARGEST_SPREAD = 0.5
"""Of the steps of a calibration: median / quietest tenth, minus 1. On a shared machine whose cores
have no other processes, it is 0.1 to 0.4."""


def calibrate(system: System, paths: Sequence[Path]) -> System:
    """Return a system with measured rates, and their records as sources.

    - `perf kernels`: bandwidth of a large copy and rate of a large product. The classes of
      launches are scaled by assumed / measured rate.
    - `perf comm`: latency and bandwidth, the medians over the kinds of collectives. They are those
      within a node if the ranks fit into one, else those between nodes.

    Raises:
        BenchmarkError: A file is no such record, or of another GPU.
    """
    for path in paths:
        record = _read(path)
        if record["measurement"] == "kernels":
            system = _with_rates(system, record["figures"], path)
        elif record["measurement"] == "comm":
            system = _with_link(system, record["figures"], path)
        else:
            raise BenchmarkError(
                f"{path} is a record of `perf {record['measurement']}`; expected one of `perf "
                "kernels` or `perf comm`"
            )
    return system


def calibrate_cpu(paths: Sequence[Path]) -> CpuSystem:
    """Return the system of CPUs that a record of `perf kernels --calls` was measured on.

    A record of `perf comm` adds latency and rate of each kind of collective.

    Raises:
        BenchmarkError: There is not exactly one record of `perf kernels --calls` on a CPU, or
            another record is not of `perf comm`.
    """
    records = [(path, _read(path)) for path in paths]
    kernels = [(path, each) for path, each in records if each["measurement"] == "kernels"]
    if len(kernels) != 1:
        raise BenchmarkError(
            f"found {len(kernels)} records of `perf kernels`; a system of CPUs needs one, and at "
            "most one of `perf comm`. The rates of a GPU replace those of a named system, such as "
            "`plan systems h100_sxm --calibrate kernels.json --out mine.json`"
        )
    path, record = kernels[0]
    steps = _steps(record["figures"], path)
    rates = _cpu_rates(steps, path)
    machine = record.get("machine", {})
    processor, cores = str(machine.get("processor", "CPU")), machine.get("cpu_count")
    if not isinstance(cores, int):
        raise BenchmarkError(
            f"{path}: machine.cpu_count is {cores!r}; expected the number of cores"
        )
    source = f"measured: {path.name} of {record.get('date', 'an unknown date')}"
    system = CpuSystem(
        name=name_of(processor),
        processor=processor,
        num_cores=cores,
        num_processes=record["figures"].get("num_processes", 1),
        rates=rates,
        sources={"rates": source},
        warnings=_disturbances(steps),
    )
    for other, each in records:
        if each["measurement"] not in ("kernels", "comm"):
            raise BenchmarkError(
                f"{other} is a record of `perf {each['measurement']}`; expected `perf comm`"
            )
        if each["measurement"] == "comm":
            system = _with_collectives(system, each["figures"], other)
    return system


def _with_collectives(system: CpuSystem, figures: dict[str, Any], path: Path) -> CpuSystem:
    """Return a system with the collectives of a record and, if it has it, the wait."""
    system = dataclasses.replace(
        system,
        collectives=_links(figures, path),
        sources={**system.sources, "collectives": f"measured: {path.name}"},
    )
    try:
        steps = [from_json(ShardedStep, each) for each in figures.get("sharded_steps") or ()]
        return dataclasses.replace(system, wait_seconds=_wait(system, steps))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise BenchmarkError(f"{path}: sharded steps that cannot be used: {error}") from error


def _steps(figures: dict[str, Any], path: Path) -> list[StepCalls]:
    """Return the steps whose calls were timed."""
    if figures.get("device") != "cpu" or not figures.get("calls"):
        raise BenchmarkError(
            f"{path}: expected the calls of a step on a CPU, found none of "
            f"{figures.get('device')}; measure with `torchrun --nproc-per-node 2 -m benchmark perf "
            "kernels --preset middle --calls --json kernels.json`"
        )
    if figures.get("threads") != 1:
        raise BenchmarkError(
            f"{path}: found {figures.get('threads')} threads; ranks on a CPU are planned with one, "
            "so measure with --threads 1"
        )
    try:
        return [from_json(StepCalls, each) for each in figures["calls"]]
    except (ValueError, TypeError) as error:
        raise BenchmarkError(f"{path}: calls that cannot be used: {error}") from error


def _cpu_rates(steps: Sequence[StepCalls], path: Path) -> CpuRates:
    try:
        measured = [
            MeasuredStep(calls=step.calls, seconds=statistics.median(step.seconds))
            for step in steps
        ]
        return fit_rates(measured)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise BenchmarkError(f"{path}: calls that cannot be used: {error}") from error


def _disturbances(steps: Sequence[StepCalls]) -> list[str]:
    """Return a warning if other processes used the cores while the steps were measured."""
    waited = max(step.waited_share for step in steps)
    spread = max(statistics.median(step.seconds) / _quiet(step.seconds) - 1.0 for step in steps)
    found = []
    if waited > _MOST_WAITED_SHARE:
        found.append(f"for {waited:.0%} of a step, the core of the rank ran something else")
    if spread > _LARGEST_SPREAD:
        found.append(f"a median step took {spread:.0%} longer than the quietest tenth")
    return [
        f"the calibration was disturbed: {each}. Predictions may be wrong; measure again when "
        "nothing else runs on the machine"
        for each in found
    ]


def _quiet(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(QUIET_SHARE * len(seconds))]


def _wait(system: CpuSystem, steps: Sequence[ShardedStep]) -> float:
    """Return what sharded steps take besides their calls and collectives, at each collective."""
    waits = []
    for step in steps:
        counts = step.counts
        known = system.rates.seconds(counts.calls) + sent_seconds(counts, system)
        rest = max(0.0, statistics.median(step.seconds) - known)
        waits.append(rest / sum(each.calls for each in counts.collectives))
    return statistics.fmean(waits) if waits else 0.0


def _read(path: Path) -> dict[str, Any]:
    expected = "a record that `perf --json` wrote"
    record = read_json(path, expected=expected)
    try:
        if not isinstance(record["figures"], dict) or not isinstance(record["measurement"], str):
            raise ValueError("no figures")
    except (ValueError, KeyError, TypeError) as error:
        raise not_expected(path, error, expected=expected) from error
    return record


def _with_rates(system: System, figures: dict[str, Any], path: Path) -> System:
    copy, product = (
        figures.get(name) for name in ("copy_bytes_per_second", "matmul_flops_per_second")
    )
    if not copy or not product or figures.get("device") != "cuda":
        raise BenchmarkError(
            f"{path}: expected copy_bytes_per_second and matmul_flops_per_second of a GPU, found "
            f"{copy}, {product} on {figures.get('device')}"
        )
    rates = system.chip.sustained
    try:
        memory, matrix = rates.bytes_per_second / copy, rates.matmul_flops_per_second / product
        return dataclasses.replace(
            system,
            calibration={
                str(kind): memory if kind in MEMORY_CLASSES else matrix for kind in EFFICIENCIES
            },
            sources={**system.sources, "calibration": f"measured: {path.name}"},
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise BenchmarkError(f"{path}: rates that cannot be used: {error}") from error


def _fits(figures: dict[str, Any], path: Path) -> dict[str, dict[str, float]]:
    fits = figures.get("fits")
    if not isinstance(fits, dict) or not fits:
        raise BenchmarkError(f"{path}: no fits of collectives")
    return fits


def _links(figures: dict[str, Any], path: Path) -> dict[str, Link]:
    try:
        return {
            kind: Link(
                # The fit of noisy times may have no latency.
                latency_seconds=max(fit["latency_seconds"], _LEAST_LATENCY_SECONDS),
                bytes_per_second=fit["bytes_per_second"],
            )
            for kind, fit in _fits(figures, path).items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(f"{path}: no fits of collectives: {error}") from error


def _with_link(system: System, figures: dict[str, Any], path: Path) -> System:
    fits = list(_fits(figures, path).values())
    try:
        link = Link(
            latency_seconds=statistics.median(fit["latency_seconds"] for fit in fits),
            bytes_per_second=statistics.median(fit["bytes_per_second"] for fit in fits),
        )
        within = figures["num_ranks"] <= system.gpus_per_node
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BenchmarkError(f"{path}: no fits of collectives: {error}") from error
    name = "within_node" if within else "between_nodes"
    changes: dict[str, Any] = {name: link}
    return dataclasses.replace(
        system, **changes, sources={**system.sources, name: f"measured: {path.name}"}
    )
