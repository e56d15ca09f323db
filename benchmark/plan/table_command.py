"""`plan table`: what is expected of this project's runs, as the table of docs/plan.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmark.command_line import BenchmarkError
from benchmark.plan.loader_wait import plan_with_wait
from benchmark.plan.step_counts import CountTable, read_table
from benchmark.plan.step_model import Factors
from benchmark.plan.systems import load_system
from benchmark.plan.train_command import phases_named, project_factors
from benchmark.plan.train_plan import TargetTime, TrainPlan, default_gpus


class Presets(NamedTuple):
    """Presets of a number of GPUs. Phases that have fewer by default use those."""

    num_gpus: int
    benchmark: str
    """To 0.8."""
    whole: str
    """In phases, to 0.9."""


ROWS: Final = (
    Presets(8, "mlperf_1x8", "initial_training_8gpu"),
    Presets(64, "mlperf_8x8_dap1", "initial_training_64gpu"),
    Presets(128, "mlperf_16x8_dap1", "initial_training"),
    Presets(1056, "mlperf_128x8_dap8", "initial_training_1056"),
    Presets(2080, "mlperf_256x8_dap8", "initial_training_2080"),
)
SYSTEMS: Final = {"h100_sxm": "H100", "h200_sxm": "H200"}
HEADER: Final = (
    "GPUs",
    "DAP",
    "s/step (peak rates to largest factor)",
    "GB a GPU (recomputed blocks)",
    "min to 0.8 (samples' range)",
    "GPU-h",
    "PFLOP/s",
    "parallel efficiency",
    "h, GPU-h to 0.9",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options: the table is that of the document."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Print the table in Markdown."""
    del args
    table = read_table()
    factors = project_factors(table)
    rows = [row(presets, system, table, factors) for presets in ROWS for system in SYSTEMS]
    # An error leaves no part of a table.
    for cells in (HEADER, ["---"] * len(HEADER), *rows):
        print(_line(cells))
    return 0


def row(presets: Presets, system: str, table: CountTable, factors: Factors) -> list[str]:
    """Return the cells of a number of GPUs of a system, which is a key of SYSTEMS.

    table: stored counts. factors: of the code bases with published logs.
    """
    (plan,) = _plans(presets.benchmark, system, presets.num_gpus, table, factors)
    target, memory = _target(plan), plan.memory
    if memory is None:
        raise BenchmarkError(
            f"the counts of {presets.benchmark} have no memory; write them with `plan counts "
            "--stored`"
        )
    targets = [
        _target(phase) for phase in _plans(presets.whole, system, presets.num_gpus, table, factors)
    ]
    hours = sum(each.seconds for each in targets) / 3600
    minutes = [
        seconds / 60 for seconds in (target.seconds, target.least_seconds, target.most_seconds)
    ]
    return [
        f"{presets.num_gpus:,} {SYSTEMS[system]}",
        str(plan.layout.dap),
        f"{plan.step_seconds:.3f} ({plan.least_step_seconds:.3f} to {plan.most_step_seconds:.3f})",
        f"{memory.total / 1e9:.0f} ({memory.recomputed_blocks})",
        "{:.1f} ({:.1f} to {:.1f})".format(*minutes),
        f"{target.gpu_hours:,.0f}",
        f"{plan.petaflops:.1f}",
        f"{plan.parallel_efficiency:.0%}".replace("%", " %"),
        f"{hours:.1f}, {sum(each.gpu_hours for each in targets):,.0f}",
    ]


def _plans(
    preset: str, system: str, num_gpus: int, table: CountTable, factors: Factors
) -> list[TrainPlan]:
    """Plan each phase of a preset on at most a number of GPUs."""
    phases = phases_named(preset, None)
    return [
        plan_with_wait(
            phase,
            load_system(system),
            num_gpus if len(phases) == 1 else min(num_gpus, default_gpus(phase.config)),
            table,
            factors=factors,
            preset=preset,
        )
        for phase in phases
    ]


def _target(plan: TrainPlan) -> TargetTime:
    assert plan.target is not None, "the presets of the table have a target"
    return plan.target


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
