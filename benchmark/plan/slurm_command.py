"""`plan slurm`: write a Slurm configuration for a preset on a system."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.command_line import (
    BenchmarkError,
    check_output_option,
    real_number,
    whole_number,
)
from benchmark.plan.run_seconds import predicted_seconds
from benchmark.plan.slurm_config import SlurmConfig, check_gpus, plan_slurm, smallest_gpus
from benchmark.plan.step_counts import STORED
from benchmark.plan.systems import System, load_system
from benchmark.plan.time_limit import format_time_limit
from benchmark.presets import build_preset, preset_label
from benchmark.replace_file import replace_text
from openfold_opt.train.phases import Phase, find_phase

DEFAULT_RUNS = 10
"""Runs of a result of MLPerf HPC. The job of a phase makes one."""
_SUFFIX = ".sh"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--preset", required=True, metavar="P", help="name of a preset, or path of a file")
    add("--system", required=True, metavar="S", help="name of a system, or path of a file")
    add("--out", required=True, type=Path, metavar="FILE", help="configuration to write, NAME.sh")
    add(
        "--gpus",
        type=whole_number(1),
        metavar="N",
        help="GPUs of the job (default: those of the preset)",
    )
    add("--phase", metavar="NAME", help="phase of a preset with phases, by its name or number")
    add(
        "--runs",
        type=whole_number(1, 10_000),
        metavar="N",
        help="runs of the job (default: 10; with --phase, 1)",
    )
    add(
        "--run-minutes",
        type=real_number(more_than=0, at_most=1e6),
        metavar="T",
        help="time of one run, start-up included (default: predicted, as by `plan train`)",
    )
    add("--counts", type=Path, default=STORED, metavar="FILE", help="counts of `plan counts`")


def run(args: argparse.Namespace) -> int:
    """Write the configuration, and print what it requests."""
    if args.out.suffix != _SUFFIX:
        raise BenchmarkError(f"--out {args.out}: expected a name that ends with {_SUFFIX}")
    check_output_option("--out", args.out)
    system, phase = load_system(args.system), _phase(args)
    num_gpus = args.gpus or smallest_gpus(phase.config)
    check_gpus(phase.config, system, num_gpus, preset=args.preset)
    plan = plan_slurm(
        phase.config,
        preset=preset_label(args.preset),
        name=args.out.stem,
        system=system,
        num_gpus=num_gpus,
        run_seconds=_run_seconds(args, phase, system, num_gpus),
        num_runs=args.runs or (DEFAULT_RUNS if args.phase is None else 1),
    )
    replace_text(args.out, plan.text(args.out))
    print(_describe(plan, args.out))
    print(f"next: {_next_command(args)}")
    return 0


def _next_command(args: argparse.Namespace) -> str:
    """Return the command that submits the job."""
    if args.phase is None:
        return f"source {args.out}; sbatch slurm/run.sub"
    return (
        f"slurm/full_training.sh --preset {args.preset} --phase {args.phase}={args.out} with the "
        "other phases"
    )


def _phase(args: argparse.Namespace) -> Phase:
    config = build_preset(args.preset)
    if config.phases and args.phase is None:
        names = ", ".join(phase.name for phase in config.phases)
        raise BenchmarkError(
            f"preset {args.preset} has phases, each with its own job; give --phase, one of {names}"
        )
    try:
        return find_phase(config, args.phase or "1")
    except ValueError as error:
        raise BenchmarkError(str(error)) from error


def _run_seconds(args: argparse.Namespace, phase: Phase, system: System, num_gpus: int) -> float:
    """Return the time of a run: what the user says, or the prediction."""
    if args.run_minutes is not None:
        return 60 * args.run_minutes
    seconds = predicted_seconds(
        phase, system, num_gpus, preset=preset_label(args.preset), counts=args.counts
    )
    if seconds is None:
        raise BenchmarkError(
            f"preset {args.preset}: the samples to its target are unknown, so the time of a run is "
            "not predicted; give --run-minutes"
        )
    return seconds


def _describe(plan: SlurmConfig, path: Path) -> str:
    evaluation = f"{plan.num_evaluation} evaluate" if plan.num_evaluation else "the same evaluate"
    lines = [
        f"{path}: {plan.nodes} nodes x {plan.ranks_per_node} GPUs of {plan.system}; "
        f"{plan.num_training} train with {plan.dap_size} per sample and batch "
        f"{plan.global_batch_size}, {evaluation}; {plan.division} division",
        f"time limit {format_time_limit(plan.limit_seconds)} for {plan.num_runs} runs of "
        f"{plan.run_seconds / 60:.1f} minutes",
        *(f"warning: {text}" for text in plan.warnings),
    ]
    return "\n".join(lines)
