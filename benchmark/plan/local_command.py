"""`plan local`: calibrate on this CPU, predict steps of the demos, then measure them."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.command_line import BenchmarkError, check_output_option
from benchmark.perf.tools.options import add_count, add_data_dir
from benchmark.perf.tools.perf_record import RecordFile
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.calibration import calibrate_cpu
from benchmark.plan.cpu_plan import CpuPlan, plan_cpu_phase
from benchmark.plan.cpu_system import CpuSystem
from benchmark.plan.local_runs import (
    NUM_RANKS,
    PhaseSeconds,
    measure_run,
    run_ranks,
    sample_seconds,
)
from benchmark.presets import build_preset
from openfold_opt.train.phases import phases_of

CALIBRATED_ON = "middle"
PREDICTED = ("demo", "demo_dap2")
_LEAST_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class LocalFigures:
    """Predictions of a machine, made before the measurements, and the measurements."""

    calibrated_on: str
    system: CpuSystem
    predicted: list[CpuPlan]
    measured: list[dict[str, dict[str, PhaseSeconds]]]
    """Round -> preset -> phase -> its steps."""


METRICS = LocalFigures


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A phase, measured and predicted."""

    preset: str
    phase: str
    predicted: float
    quiet: list[float]
    """Seconds of each round, quietest tenth."""
    medians: list[float]

    @property
    def error(self) -> float:
        """Predicted / quietest tenth, minus 1; of the median round."""
        return self.predicted / statistics.median(self.quiet) - 1.0

    @property
    def median_error(self) -> float:
        """The same of the median step."""
        return self.predicted / statistics.median(self.medians) - 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_dir(parser)
    add_count(parser, "--rounds", default=3, what="rounds in which the presets alternate")
    add_count(parser, "--steps", default=40, what="steps of each phase in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record to FILE")


def run(args: argparse.Namespace) -> int:
    """Calibrate, predict, measure, and print measured, predicted and error."""
    check_output_option("--json", args.json)
    if args.rounds < 1 or args.steps < _LEAST_STEPS:
        raise BenchmarkError(
            f"--rounds {args.rounds} --steps {args.steps}: expected at least 1 and {_LEAST_STEPS}"
        )
    torch.set_num_threads(1)
    record = RecordFile(args.json, measurement="plan_local")
    with tempfile.TemporaryDirectory(prefix="plan-local-") as folder:
        system = _calibrate(Path(folder))
        plans = [plan for preset in PREDICTED for plan in _predict(preset, system, args.data_dir)]
        figures = LocalFigures(
            calibrated_on=CALIBRATED_ON, system=system, predicted=plans, measured=[]
        )
        # The record has the predictions before anything that they predict is measured.
        record.save(figures)
        for warning in system.warnings:
            print(f"WARNING: {warning}")
        for plan in plans:
            print(f"predicted: {plan.preset}, {plan.phase}: {1e3 * plan.step_seconds:.1f} ms")
        for number in range(args.rounds):
            figures.measured.append(
                {
                    preset: measure_run(
                        preset,
                        [plan.phase for plan in plans if plan.preset == preset],
                        steps=args.steps,
                        data_dir=args.data_dir.resolve(),
                        folder=Path(folder, f"{preset}_{number}"),
                    )
                    for preset in PREDICTED
                }
            )
            record.save(figures)
    record.save(figures, is_complete=True)
    print(describe(compare(figures)))
    return 0


def _calibrate(folder: Path) -> CpuSystem:
    """Measure calls and collectives on NUM_RANKS processes."""
    kernels, comm = folder / "kernels.json", folder / "comm.json"
    preset = ["--preset", CALIBRATED_ON]
    # The rates come from the calls of a step, so one operation is enough.
    only = ["--only", "layer_norm", "--repeats", "3"]
    run_ranks(
        ["perf", "kernels", *preset, "--calls", *only, "--json", str(kernels)],
        what="perf kernels",
    )
    run_ranks(
        [
            *["perf", "comm", *preset, "--device", "cpu", "--passes", "0", "--steps"],
            *["--json", str(comm)],
        ],
        what="perf comm",
    )
    return calibrate_cpu([kernels, comm])


def _predict(preset: str, system: CpuSystem, data_dir: Path) -> list[CpuPlan]:
    """Return the plan of each phase."""
    return [
        plan_cpu_phase(
            phase,
            system,
            NUM_RANKS,
            preset=preset,
            # The ranks leave no core to those who prepare the samples.
            loader_seconds=sample_seconds(phase.config, data_dir)
            if system.num_cores <= NUM_RANKS
            else 0.0,
        )
        for phase in phases_of(build_preset(preset))
    ]


def compare(figures: LocalFigures) -> list[Comparison]:
    """Return a comparison for each phase."""
    return [
        Comparison(
            preset=plan.preset,
            phase=plan.phase,
            predicted=plan.step_seconds,
            quiet=[each[plan.preset][plan.phase].quiet for each in figures.measured],
            medians=[each[plan.preset][plan.phase].median for each in figures.measured],
        )
        for plan in figures.predicted
    ]


def describe(comparisons: list[Comparison]) -> str:
    """Format a row for each phase, and the mean and largest error."""
    rows = [
        [
            f"{each.preset}, {each.phase}",
            _milliseconds(each.quiet),
            _milliseconds(each.medians),
            f"{1e3 * each.predicted:.1f}",
            f"{each.error:+.1%}",
            f"{each.median_error:+.1%}",
        ]
        for each in comparisons
    ]
    errors = [abs(each.error) for each in comparisons]
    header = ["step, ms", "quietest tenth (rounds)", "median (rounds)", "predicted"]
    header += ["error of the quietest tenth", "of the median"]
    return "\n".join(
        [
            table(rows, header=header),
            f"mean error {statistics.fmean(errors):.1%}, largest {max(errors):.1%}, of the "
            f"quietest tenth of the steps; calibrated on {CALIBRATED_ON}",
        ]
    )


def headline(figures: LocalFigures) -> str:
    """Summarize the errors, for the table of results."""
    errors = {f"{each.preset} {each.phase}": each.error for each in compare(figures)}
    shown = ", ".join(f"{name} {error:+.0%}" for name, error in errors.items())
    return f"seconds of a step predicted from {figures.calibrated_on}, against measured: {shown}"


def _milliseconds(seconds: list[float]) -> str:
    middle = f"{1e3 * statistics.median(seconds):.1f}"
    return f"{middle} ({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f})"
