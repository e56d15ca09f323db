"""Systems with the rates that `perf kernels` and `perf comm` measured, of GPUs and of CPUs."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import not_expected, read_json
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.roofline import EFFICIENCIES
from benchmark.perf.tools.step_calls import ShardedStep, StepCalls
from benchmark.plan.call_checks import check_sharded_steps, check_steps
from benchmark.plan.cpu_rates import CpuRates, MeasuredStep, fit_rates
from benchmark.plan.cpu_system import (
    MEASURE_COMM,
    NUMBERS,
    CpuSystem,
    check_cpu_system,
    name_of,
    sent_seconds,
)
from benchmark.plan.explain import QUIET_SHARE
from benchmark.plan.system_checks import check_line, check_number, check_whole
from benchmark.plan.systems import Link, System

_MEASURE_KERNELS = (
    "torchrun --nproc-per-node 2 -m benchmark perf kernels --preset middle --calls "
    "--only layer_norm --json kernels.json"
)
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
    others = [(path, each) for path, each in records if each["measurement"] != "kernels"]
    for path, each in others:
        if each["measurement"] != "comm":
            raise BenchmarkError(
                f"{path} is a record of `perf {each['measurement']}`; expected `perf comm`"
            )
    if len(others) > 1:
        raise BenchmarkError(f"found {len(others)} records of `perf comm`; expected at most one")
    path, record = kernels[0]
    figures = record["figures"]
    steps = _steps(figures, path)
    processor, cores = _machine(record, path)
    system = CpuSystem(
        name=name_of(processor),
        processor=processor,
        num_cores=cores,
        num_processes=figures.get("num_processes"),
        rates=_cpu_rates(steps, path),
        sources={"rates": f"measured: {path.name} of {record.get('date', 'an unknown date')}"},
        warnings=_disturbances(steps),
    )
    _check(system, path)
    for other, each in others:
        system = _with_collectives(system, each, other)
        _check(system, other)
    return system


def _check(system: CpuSystem, path: Path) -> None:
    """Raise BenchmarkError if a figure of the system is out of range, before it is written."""
    try:
        check_cpu_system(system)
    except ValueError as error:
        raise BenchmarkError(f"{path} cannot be used: {error}; measure again") from error


def _machine(record: dict[str, Any], path: Path) -> tuple[Any, Any]:
    """Return the processor and the number of cores that a record names."""
    machine = record.get("machine")
    found = machine if isinstance(machine, dict) else {}
    processor, cores = found.get("processor"), found.get("cpu_count")
    try:
        check_line("machine.processor", processor)
        check_whole("machine.cpu_count", cores, NUMBERS)
    except ValueError as error:
        raise BenchmarkError(f"{path}: {error}; measure again") from error
    return processor, cores


def _with_collectives(system: CpuSystem, record: dict[str, Any], path: Path) -> CpuSystem:
    """Return a system with the collectives of a record, and the wait of its sharded steps."""
    figures = record["figures"]
    links = _links(figures, path)
    found = (figures.get("device"), figures.get("num_ranks"), _machine(record, path)[0])
    expected = ("cpu", system.num_processes, system.processor)
    if found != expected:
        raise BenchmarkError(
            f"{path} was measured on device, ranks and processor {found}; expected those of the "
            f"record of `perf kernels`, {expected}; measure both on this machine: `{MEASURE_COMM}`"
        )
    system = dataclasses.replace(
        system,
        collectives=links,
        sources={**system.sources, "collectives": f"measured: {path.name}"},
    )
    if figures.get("sharded_steps") is None:
        warning = (
            f"{path.name} was measured without --steps, so ranks are taken not to wait for each "
            f"other at collectives; measure with `{MEASURE_COMM}`"
        )
        return dataclasses.replace(system, warnings=[*system.warnings, warning])
    try:
        steps = from_json(list[ShardedStep], figures["sharded_steps"])
        check_sharded_steps(steps)
        return dataclasses.replace(system, wait_seconds=_wait(system, steps))
    except (ValueError, TypeError) as error:
        raise BenchmarkError(
            f"{path}: sharded steps that cannot be used: {error}; measure with `{MEASURE_COMM}`"
        ) from error


def _steps(figures: dict[str, Any], path: Path) -> list[StepCalls]:
    """Return the steps whose calls were timed."""
    if figures.get("device") != "cpu" or not figures.get("calls"):
        raise BenchmarkError(
            f"{path}: expected the calls of a step on a CPU, found none of "
            f"{figures.get('device')}; measure with `{_MEASURE_KERNELS}`"
        )
    if figures.get("threads") != 1:
        raise BenchmarkError(
            f"{path}: found {figures.get('threads')} threads; ranks on a CPU are planned with one, "
            "so measure with --threads 1"
        )
    try:
        steps = from_json(list[StepCalls], figures["calls"])
        check_steps(steps)
        return steps
    except (ValueError, TypeError) as error:
        raise _unusable_calls(path, error) from error


def _cpu_rates(steps: Sequence[StepCalls], path: Path) -> CpuRates:
    measured = [
        MeasuredStep(calls=step.calls, seconds=statistics.median(step.seconds)) for step in steps
    ]
    try:
        return fit_rates(measured)
    except ValueError as error:
        raise _unusable_calls(path, error) from error


def _unusable_calls(path: Path, error: Exception) -> BenchmarkError:
    """Return the error for damaged calls, or those that an earlier version of perf wrote."""
    return BenchmarkError(
        f"{path}: calls that cannot be used: {error}; measure again with `{_MEASURE_KERNELS}`"
    )


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
    return statistics.fmean(waits)


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
        raise BenchmarkError(
            f"{path}: no fits of collectives, as of an interrupted measurement; measure again with "
            "`perf comm`"
        )
    return fits


def _unusable_fits(path: Path, error: Exception) -> BenchmarkError:
    return BenchmarkError(
        f"{path}: fits of collectives that cannot be used: {error}; measure again with `perf comm`"
    )


def _latency(fit: dict[str, float]) -> float:
    """Return the latency of a fit. That of noisy times may be 0, which no link has."""
    latency = fit["latency_seconds"]
    check_number("latency_seconds", latency, (0.0, math.inf))
    return max(latency, _LEAST_LATENCY_SECONDS)


def _links(figures: dict[str, Any], path: Path) -> dict[str, Link]:
    try:
        return {
            kind: Link(latency_seconds=_latency(fit), bytes_per_second=fit["bytes_per_second"])
            for kind, fit in _fits(figures, path).items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable_fits(path, error) from error


def _with_link(system: System, figures: dict[str, Any], path: Path) -> System:
    links = list(_links(figures, path).values())
    if not str(figures.get("device")).startswith("cuda"):
        raise BenchmarkError(
            f"{path}: expected collectives of GPUs, found device {figures.get('device')!r}; "
            f"measure `perf comm` on the GPUs of {system.name}"
        )
    link = Link(
        latency_seconds=statistics.median(each.latency_seconds for each in links),
        bytes_per_second=statistics.median(each.bytes_per_second for each in links),
    )
    try:
        check_whole("num_ranks", figures.get("num_ranks"), NUMBERS)
    except ValueError as error:
        raise _unusable_fits(path, error) from error
    name = "within_node" if figures["num_ranks"] <= system.gpus_per_node else "between_nodes"
    changes: dict[str, Any] = {name: link}
    return dataclasses.replace(
        system, **changes, sources={**system.sources, name: f"measured: {path.name}"}
    )
