"""`plan train`: time, memory and cost of a training run on a system."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmark.command_line import (
    BenchmarkError,
    check_json_option,
    check_output_option,
    real_number,
    whole_number,
)
from benchmark.plan.bars import draw_bars, step_bars
from benchmark.plan.fitting import fit_factors
from benchmark.plan.loader_wait import plan_with_wait
from benchmark.plan.published import published_results
from benchmark.plan.step_counts import STORED, CountTable, read_table
from benchmark.plan.step_model import Factors
from benchmark.plan.systems import System, load_system
from benchmark.plan.train_plan import (
    TrainPlan,
    code_of,
    default_gpus,
    layout_for,
)
from benchmark.plan.train_report import describe_plan, describe_sum, plan_json
from benchmark.presets import build_preset, preset_label
from benchmark.replace_file import replace_text
from openfold_opt.train.phases import Phase, find_phase, phases_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_plan_options(parser)
    add = parser.add_argument
    add(
        "--gpus",
        type=whole_number(1),
        metavar="N",
        help="GPUs of the job (default: one micro-batch a step)",
    )
    add("--phase", metavar="NAME", help="one phase, by its name or number (default: all)")
    add(
        "--loader-wait",
        type=real_number(at_least=0, at_most=1e6),
        metavar="S",
        help="seconds that a micro-step waits for data (default: simulated, as by `plan loader`)",
    )
    add("--png", type=Path, metavar="FILE", help="draw the parts of a step as stacked bars")


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that several questions share."""
    add = parser.add_argument
    add("--preset", required=True, metavar="P", help="name, or path of a file")
    add("--system", required=True, metavar="S", help="name (`plan systems`), or path of a file")
    add("--counts", type=Path, default=STORED, metavar="FILE", help="counts of `plan counts`")
    add("--json", type=Path, metavar="FILE", help="write all numbers to FILE")


def run(args: argparse.Namespace) -> int:
    """Print the plan of each phase, and their sum if there are several."""
    check_json_option(args.json)
    check_output_option("--png", args.png)
    system, table = load_system(args.system), read_table(args.counts)
    factors = project_factors(table)
    plans = [
        plan_phase(phase, system, table, factors, args)
        for phase in phases_named(args.preset, args.phase)
    ]
    print("\n\n".join(describe_plan(plan, system) for plan in plans))
    if len(plans) > 1:
        print("\n" + describe_sum(plans))
    value: dict[str, Any] = {
        "counts": {"commit": table.commit, "date": table.date},
        "plans": [plan_json(plan) for plan in plans],
    }
    if args.png is not None:
        bars = [bar for plan in plans for bar in step_bars(plan)]
        draw_bars(bars, args.png)
        value["bars"] = [{"label": bar.label, "seconds": bar.seconds} for bar in bars]
    if args.json is not None:
        replace_text(args.json, json.dumps(value, indent=1) + "\n")
    return 0


def project_factors(table: CountTable) -> Factors:
    """Return the factors of the code bases with published logs; this project has none."""
    try:
        return fit_factors(published_results(), table)
    except BenchmarkError:
        # A user's counts need not have those of other code bases.
        return Factors()


def phases_named(preset: str, phase: str | None) -> list[Phase]:
    """Return the phases of a preset, or the one with this name or number.

    Raises:
        BenchmarkError: The preset has no such phase.
    """
    config = build_preset(preset)
    try:
        return list(phases_of(config)) if phase is None else [find_phase(config, phase)]
    except ValueError as error:
        raise BenchmarkError(f"preset {preset}: {error}") from error


def plan_phase(
    phase: Phase,
    system: System,
    table: CountTable,
    factors: Factors,
    args: argparse.Namespace,
) -> TrainPlan:
    """Plan one phase with the options of the command line."""
    config = phase.config
    num_gpus = default_gpus(config) if args.gpus is None else args.gpus
    layout = layout_for(config, system, num_gpus, code=code_of(config))
    return plan_with_wait(
        phase,
        system,
        layout,
        table,
        factors=factors,
        preset=preset_label(args.preset),
        loader_wait=args.loader_wait,
    )
