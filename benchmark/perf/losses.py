"""`perf losses`: check that the optimized path converges like the reference kernels.

Trains both from the same weights on the same samples. The baselines are reference runs from
perturbed weights and with other seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from dataclasses import dataclass

import torch

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.perf.step import what_runs
from benchmark.perf.subprocesses.losses_probe import RunSettings, configuration
from benchmark.perf.tools.can_run import device_for
from benchmark.perf.tools.loss_windows import (
    FAST,
    FIRST_STEPS,
    PERTURBED,
    REFERENCE,
    SEED,
    Metric,
    Side,
    Sides,
    compare,
    first_step_at,
    largest_of_first_steps,
    summarize,
)
from benchmark.perf.tools.options import add_count, add_data_dir, add_kernels, add_preset
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.probe import run_probe
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset
from data_prep.progress import Progress
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.precision import PRECISIONS

PROBE = "benchmark.perf.subprocesses.losses_probe"
ROUNDING = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8}
"""Precision -> largest relative perturbation of a weight.

This is the largest relative rounding error, 2**-p for a significand of p bits: 24, 11 and 8.
"""


@dataclass(frozen=True, kw_only=True)
class LossMetrics:
    """Metrics of `perf losses`."""

    preset: str
    steps: int
    """Steps of each run."""
    seed: int
    kernels: str
    precision: str
    graphs: bool
    """Whether the optimized path uses CUDA graphs."""
    ran: str | None = None
    """Implementation that `kernels` selects; None in old records."""
    padded: bool
    """Whether samples are padded to the crop size although the preset does not request it."""
    perturbation: float
    """Largest relative perturbation of a weight in the perturbed runs."""
    target_lddt_ca: float
    data_checksum: str
    sides: dict[str, Side]
    """Name of a run, see loss_windows -> its metrics."""


METRICS = LossMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Train a preset from the same weights on the same samples, once with reference kernels in "
        "float32 and once with the optimized path, each in a separate process. Compare losses and "
        "gradient norms in windows of steps. Any rounding makes two runs diverge, so the baseline "
        "is a reference run whose initial weights are perturbed by up to the rounding error of "
        "the optimized precision. The exit code is 0 whether the losses agree or not; a loss that "
        "is not finite is an error."
    )
    add_preset(parser, default="demo_one_phase", what="preset to train")
    add_data_dir(parser)
    add_count(parser, "--steps", default=200, what="steps of each run")
    add_count(parser, "--seed", default=1, what="seed of weights, samples and dropout")
    baseline = "reference runs from perturbed weights, the baseline"
    add_count(parser, "--perturbed", default=2, what=baseline)
    seeds = "reference runs with the next seeds, to compare with"
    add_count(parser, "--seeds", default=1, what=seeds)
    _add_optimized_path_arguments(parser)


def _add_optimized_path_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimized path")
    add_kernels(group, what="kernels of the optimized path")
    group.add_argument(
        "--precision",
        default="bf16",
        choices=PRECISIONS,
        help="precision of the optimized path (default: bf16)",
    )
    group.add_argument(
        "--graphs",
        default="auto",
        choices=("auto", "on", "off"),
        help="CUDA graphs in the optimized path (default: auto, on if there is a GPU)",
    )


def measure(args: argparse.Namespace) -> LossMetrics:
    """Train every run and return its losses, gradient norms and evaluations.

    Raises:
        BenchmarkError: An option is out of range, the preset or the data cannot be used, or a run
        failed.
    """
    if min(args.steps, args.perturbed) < 1 or min(args.seeds, args.seed) < 0:
        raise BenchmarkError(
            "--steps and --perturbed must be at least 1, --seeds and --seed at least 0"
        )
    if args.graphs == "on" and not torch.cuda.is_available():
        raise BenchmarkError("--graphs on needs a GPU, and PyTorch finds none; omit it")
    config = build_preset(args.preset)
    try:
        checksum = ShardDataSource(args.data_dir).checksum()
        count_training_ranks(config.parallel, 1)
        graphs = args.graphs == "on" or (
            args.graphs == "auto" and resolve_device(config.device, local_rank=0).type == "cuda"
        )
        sides = _sides(args, config, graphs=graphs)
        device_for(config, kernels=args.kernels, precision=args.precision)
    except (ValueError, OSError) as error:
        raise BenchmarkError(describe_error(error)) from error
    metrics = LossMetrics(
        preset=args.preset,
        steps=args.steps,
        seed=args.seed,
        kernels=args.kernels,
        precision=args.precision,
        graphs=graphs,
        ran=what_runs(args.kernels, config.device),
        padded=sides[FAST].pads and not config.data.pad_to_crop,
        perturbation=ROUNDING[args.precision],
        target_lddt_ca=config.evaluation.target_lddt_ca,
        data_checksum=checksum,
        sides={},
    )
    with Progress(len(sides) * args.steps, what="losses", unit="step") as progress:
        for name, settings in sides.items():
            progress.describe(name)
            metrics.sides[name] = run_side(name, settings, progress)
            args.record.save(metrics)
    return metrics


def _sides(args: argparse.Namespace, config: RunConfig, *, graphs: bool) -> dict[str, RunSettings]:
    """Return the settings of each run, the fast one first, so that it fails early if it cannot run.

    Raises:
        ValueError: The preset cannot be trained with these settings.
    """
    if config.init_checkpoint_sha256 is not None:
        raise ValueError(
            f"preset {args.preset} starts from MLCommons' checkpoint, but these runs start "
            "from random weights; use demo or real_smoke"
        )
    reference = RunSettings(
        preset=args.preset,
        data_dir=str(args.data_dir),
        steps=args.steps,
        seed=args.seed,
        kernels="reference",
        precision="fp32",
        graphs=False,
        # CUDA graphs need samples of one shape, and all runs must have the same samples.
        pads=graphs,
        perturbation=ROUNDING[args.precision],
    )
    fast = dataclasses.replace(
        reference, kernels=args.kernels, precision=args.precision, graphs=graphs
    )
    configuration(config, fast)
    sides = {FAST: fast, REFERENCE: reference}
    sides |= {
        f"{PERTURBED} {number}": dataclasses.replace(reference, perturbation_seed=number)
        for number in range(1, args.perturbed + 1)
    }
    return sides | {
        f"{SEED} {seed}": dataclasses.replace(reference, seed=seed)
        for seed in range(args.seed + 1, args.seed + args.seeds + 1)
    }


def run_side(name: str, settings: RunSettings, progress: Progress) -> Side:
    """Train one run in a separate process and return its metrics. Its files are temporary.

    Raises:
        BenchmarkError: The run failed; its messages are on standard error.
    """
    last = None
    with tempfile.TemporaryDirectory(prefix="perf-losses-") as folder:
        settings = dataclasses.replace(settings, output_dir=folder)
        for line in run_probe(PROBE, settings, name=f"the run {name!r}"):
            if "step" in line:
                progress.update()
            last = line
    side = from_json(Side, last)
    if len(side.losses) != settings.steps:
        raise BenchmarkError(
            f"the run {name!r} reported {len(side.losses)} steps, expected {settings.steps}"
        )
    return side


def report(metrics: LossMetrics) -> str:
    """Format losses, gradient norms and evaluations, and whether the losses agree."""
    sides = metrics.sides
    parts = [
        f"{metrics.preset}, seed {metrics.seed}, on {sides[FAST].device}. Fast: "
        f"{metrics.kernels} kernels ({metrics.ran}) in {metrics.precision} "
        f"{_graphs(metrics)}. Reference: reference kernels in fp32. Perturbed: reference, from "
        f"weights changed by up to {metrics.perturbation:.1e}. "
        "Differences are relative: the mean over the steps of a window, and the largest of "
        "several runs"
        + ("; samples are padded to the crop size in all runs" if metrics.padded else ""),
        _windows(sides, "losses", name="loss"),
        _windows(sides, "gradient_norms", name="gradient norm"),
        _evaluations(metrics),
        summarize(sides),
    ]
    return "\n\n".join(parts)


def _graphs(metrics: LossMetrics) -> str:
    if not metrics.graphs:
        return "without graphs"
    return f"with CUDA graphs ({metrics.sides[FAST].num_eager_steps} eager steps)"


def _windows(sides: Sides, metric: Metric, *, name: str) -> str:
    rows = [
        [
            f"{window.first}-{window.last}",
            f"{window.reference:.4f}",
            f"{window.fast:.4f}",
            f"{window.shift:+.1e}",
            f"{window.fast_difference:.1e}",
            f"{window.perturbed_difference:.1e}",
            f"{window.times_perturbed:.2f}",
            "-" if window.seeds_difference is None else f"{window.seeds_difference:.1e}",
        ]
        for window in compare(sides, metric)
    ]
    header = [
        f"{name} of steps",
        "reference",
        "fast",
        "shift of mean",
        "fast differs",
        "perturbed",
        "fast/perturbed",
        "other seeds",
    ]
    largest = ", ".join(
        f"{side} {value:.1e}" for side, value in largest_of_first_steps(sides, metric).items()
    )
    return (
        f"{table(rows, header=header)}\nlargest difference of a single step among the first "
        f"{FIRST_STEPS}: {largest}"
    )


def _evaluations(metrics: LossMetrics) -> str:
    target, rows = metrics.target_lddt_ca, []
    for name, side in metrics.sides.items():
        reached = first_step_at(side, target)
        last_step, last = side.evaluations[-1]
        rows.append(
            [
                name,
                f"{last:.4f}",
                str(last_step),
                "-" if reached is None else str(reached),
                f"{side.seconds_per_step:.3f}",
            ]
        )
    return table(rows, header=["run", "lDDT-Ca", "after step", f"{target} after step", "s/step"])


def headline(metrics: LossMetrics) -> str:
    """Return one line that says whether the losses agree."""
    setup = f"{metrics.kernels} kernels in {metrics.precision}"
    setup += " with CUDA graphs" if metrics.graphs else ""
    return f"{metrics.preset}, {metrics.steps} steps, {setup}: {summarize(metrics.sides)}"
