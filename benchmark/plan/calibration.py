"""Replace assumed rates of a system by those that `perf kernels` and `perf comm` measured on it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.roofline import EFFICIENCIES
from benchmark.plan.systems import Link, System

MEMORY_CLASSES = ("memory", "pytorch")
"""Classes of launches that only move data; the others are bound by matrix products."""


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


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["figures"], dict) or not isinstance(record["measurement"], str):
            raise ValueError("no figures")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{path}: {type(error).__name__} {error}; expected a record that `perf --json` wrote"
        ) from error
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
    memory, matrix = rates.bytes_per_second / copy, rates.matmul_flops_per_second / product
    calibration = {str(kind): memory if kind in MEMORY_CLASSES else matrix for kind in EFFICIENCIES}
    return dataclasses.replace(
        system,
        calibration=calibration,
        sources={**system.sources, "calibration": f"measured: {path.name}"},
    )


def _with_link(system: System, figures: dict[str, Any], path: Path) -> System:
    try:
        fits = list(figures["fits"].values())
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
