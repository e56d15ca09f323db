"""`plan train`: time, memory and cost of a training run on a system."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.command_line import (
    BenchmarkError,
    check_json_option,
    check_output_option,
    real_number,
    whole_number,
)
from benchmark.plan.bars import Bar, draw_bars, step_bars
from benchmark.plan.fitting import fit_factors
from benchmark.plan.loader_wait import plan_with_wait
from benchmark.plan.published import published_results
from benchmark.plan.step_counts import STORED, CountTable, read_table
from benchmark.plan.step_model import Factors
from benchmark.plan.systems import is_cpu_system, load_system
from benchmark.plan.train_plan import (
    default_gpus,
)
from benchmark.plan.train_report import describe_plan, describe_sum, plan_json
from benchmark.presets import build_preset, preset_label
from benchmark.replace_file import replace_text
from openfold_opt.train.config import RunConfig
from openfold_opt.train.errors import SetupError
from openfold_opt.train.phases import Phase, find_phase, phases_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_plan_options(parser)
    add = parser.add_argument
    add(
        "--gpus",
        type=whole_number(1),
        metavar="N",
        help="GPUs of the job, or ranks on CPUs (default: one micro-batch a step)",
    )
    add("--phase", metavar="NAME", help="one phase, by its name or number (default: all)")
    add(
        "--loader-wait",
        type=real_number(at_least=0, at_most=1e6),
        metavar="S",
        help="seconds that a micro-step waits for data (default: simulated, as by `plan loader`; "
        "0 on CPUs)",
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
    phases = phases_named(args.preset, args.phase)
    if is_cpu_system(args.system):
        return _plan_on_cpu(phases, args)
    system, table = load_system(args.system), read_table(args.counts)
    factors = project_factors(table)
    plans = [
        plan_with_wait(
            phase,
            system,
            _num_ranks(phase.config, args),
            table,
            factors=factors,
            preset=preset_label(args.preset),
            loader_wait=args.loader_wait,
        )
        for phase in phases
    ]
    print("\n\n".join(describe_plan(plan, system) for plan in plans))
    if len(plans) > 1:
        print("\n" + describe_sum(plans))
    value: dict[str, Any] = {
        "counts": [asdict(source) for source in dict.fromkeys(each.source for each in table.steps)],
        "plans": [plan_json(plan) for plan in plans],
    }
    if args.png is not None:
        bars = [bar for plan in plans for bar in step_bars(plan)]
        draw_bars(bars, args.png)
        value["bars"] = [{"label": bar.label, "seconds": bar.seconds} for bar in bars]
    if args.json is not None:
        replace_text(args.json, json.dumps(value, indent=1) + "\n")
    return 0


def _plan_on_cpu(phases: list[Phase], args: argparse.Namespace) -> int:
    """Print the seconds of a step of each phase on a system of CPUs."""
    if args.counts != STORED:
        raise BenchmarkError(
            f"--counts {args.counts}: a plan on CPUs traces the step itself; leave --counts out"
        )
    # These trace the step with PyTorch. Plans on GPUs read stored counts.
    from benchmark.plan.cpu_plan import cpu_plan_json, describe_cpu_plan, plan_cpu_phase
    from benchmark.plan.cpu_system import load_cpu_system

    system = load_cpu_system(args.system)
    plans = [
        plan_cpu_phase(
            phase,
            system,
            _num_ranks(phase.config, args),
            preset=preset_label(args.preset),
            loader_seconds=args.loader_wait or 0.0,
        )
        for phase in phases
    ]
    print("\n\n".join(map(describe_cpu_plan, plans)))
    value: dict[str, Any] = {"plans": [cpu_plan_json(plan) for plan in plans]}
    if args.png is not None:
        bars = [
            Bar(label=f"{plan.phase}: {plan.num_ranks} ranks, DAP {plan.dap}", seconds=plan.parts)
            for plan in plans
        ]
        draw_bars(bars, args.png)
        value["bars"] = [{"label": bar.label, "seconds": bar.seconds} for bar in bars]
    if args.json is not None:
        replace_text(args.json, json.dumps(value, indent=1) + "\n")
    return 0


def _num_ranks(config: RunConfig, args: argparse.Namespace) -> int:
    return default_gpus(config) if args.gpus is None else args.gpus


def project_factors(table: CountTable) -> Factors:
    """Return the factors of the code bases with published logs; this project has none."""
    try:
        return fit_factors(published_results(), table)
    except BenchmarkError:
        # A user's counts need not have those of other code bases.
        return Factors()


def phases_named(preset: str, phase: str | None) -> list[Phase]:
    """Return the phases of a preset, or the one with a name or a number from 1.

    Raises:
        BenchmarkError: The preset cannot be built, or it has no such phase.
    """
    try:
        config = build_preset(preset)
        return list(phases_of(config)) if phase is None else [find_phase(config, phase)]
    except SetupError as error:
        raise BenchmarkError(f"--phase {phase}: {error}") from error
    except ValueError as error:
        raise BenchmarkError(f"preset {preset}: {error}") from error
