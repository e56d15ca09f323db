"""`perf step`: measure time and peak memory of a training step, and of the MLCommons reference."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmark.command_line import BenchmarkError, check_output_option
from benchmark.perf.subprocesses.step_probe import ProfiledSteps, StepSettings, TimedSteps
from benchmark.perf.tools.can_run import device_for
from benchmark.perf.tools.limits import measure_matmul
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.options import (
    add_count,
    add_kernels,
    add_preset,
    add_reference,
    add_threads,
    checked_reference,
)
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.picture import draw_module_times
from benchmark.perf.tools.probe import run_probe
from benchmark.perf.tools.timing_stats import StepTimes, TimingStats, table
from benchmark.presets import build_preset
from data_prep.progress import tracked
from openfold_opt.kernels.cpu.library import unsupported_reason
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import resolve_auto
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.precision import PRECISIONS
from openfold_opt.train.synthetic_features import synthetic_batch

_PROBE = "benchmark.perf.subprocesses.step_probe"
_MEBIBYTE = 2**20
_GRAPHS = {"preset": None, "on": True, "off": False}

Steps = TypeVar("Steps", bound=TimedSteps)


@dataclass(frozen=True, kw_only=True)
class SideTimes:
    """Timed steps of one implementation, of all rounds."""

    seconds: list[float] = field(default_factory=list)
    """Time of each step."""
    peak_memory_bytes: list[int] = field(default_factory=list)
    """Peak memory of the process of each round."""

    def with_round(self, steps: StepTimes) -> SideTimes:
        """Return these times and those of another round."""
        return SideTimes(
            seconds=self.seconds + steps.seconds,
            peak_memory_bytes=[*self.peak_memory_bytes, steps.peak_memory_bytes],
        )


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Times of training steps."""

    preset: str
    kernels: str
    precision: str
    threads: int
    graphs: str = "preset"
    """CUDA graphs: "on", "off", or "preset" for the preset's choice."""
    ran: str = ""
    """The implementation that `kernels` resolves to, from what_runs."""
    passes: dict[str, dict[str, SideTimes]]
    """Number of recycling iterations, as text -> "ours" or "reference" -> times."""
    flops: dict[str, int] = field(default_factory=dict)
    """Floating-point operations of a step by number of recycling iterations."""
    failures: list[str] = field(default_factory=list)
    """A line for each number of recycling iterations that failed; the others are measured."""
    profile: ProfiledSteps | None = None
    matmul_flops_per_second: float | None = None
    """Measured speed of large matrix products on this machine, if any step was timed."""


METRICS = StepMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_preset(
        parser,
        default="middle",
        what="preset for sizes, precision and device; a CPU can run middle",
    )
    add_kernels(parser)
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the preset's")
    parser.add_argument(
        "--graphs", default="preset", choices=_GRAPHS, help="CUDA graphs (default: as the preset)"
    )
    parser.add_argument(
        "--passes",
        type=int,
        nargs="+",
        default=[0],
        metavar="K",
        help="numbers of recycling iterations (default: 0)",
    )
    add_count(parser, "--repeats", default=3, what="timed steps of each round")
    add_count(
        parser,
        "--rounds",
        default=2,
        what="rounds in which ours and the reference alternate; 0: only the profile",
    )
    add_threads(parser)
    _add_profile_arguments(parser)
    add_reference(
        parser.add_argument_group("MLCommons reference"),
        what="; runs on a CPU in float32 with its own recomputation",
    )


def _add_profile_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("profile")
    group.add_argument("--modules", action="store_true", help="profile a step by module")
    group.add_argument(
        "--picture", type=Path, metavar="FILE", help="plot the profile by module (.png or .svg)"
    )
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write the profile (.json or .json.gz) for https://ui.perfetto.dev",
    )


def measure(args: argparse.Namespace) -> StepMetrics:
    """Measure the steps, then the profile if requested, then the machine's limits."""
    _check(args)
    reference = checked_reference(args)
    config = build_preset(args.preset)
    args.precision = args.precision or config.precision
    device_for(config, kernels=args.kernels, precision=args.precision)
    metrics = StepMetrics(
        preset=args.preset,
        kernels=args.kernels,
        precision=args.precision,
        threads=args.threads,
        graphs=args.graphs,
        ran=what_runs(args.kernels, config.device),
        passes={},
    )
    with tempfile.TemporaryDirectory(prefix="perf-step-") as folder:
        for passes in args.passes:
            features = Path(folder, f"features_{passes}.npz")
            batch = synthetic_batch(
                config.data, batch_size=config.local_batch_size, num_passes=passes + 1
            )
            np.savez(features, **{name: value.numpy() for name, value in batch.items()})
            sides: dict[str, Callable[[], Iterator[StepTimes]]] = {
                "ours": partial(_ours, args, passes, features, TimedSteps)
            }
            if reference is not None:
                sides["reference"] = partial(
                    reference.step,
                    features,
                    blocks=config.model.evoformer_stack.num_blocks,
                    passes=passes,
                    repeats=args.repeats,
                    threads=args.threads,
                )
            _measure_passes(passes, sides, metrics, args)
        if _has_profile(args):
            # The profile is of the last number of recycling iterations.
            for profile in _ours(args, passes, features, ProfiledSteps):
                metrics = dataclasses.replace(metrics, profile=profile)
                args.record.save(metrics)
    metrics = _measure_limits(config, metrics, args)
    if args.picture is not None and metrics.profile is not None:
        draw_module_times(metrics.profile.modules, args.picture)
    return metrics


def _check(args: argparse.Namespace) -> None:
    if min(args.repeats, args.threads) < 1 or min(*args.passes, args.rounds) < 0:
        raise BenchmarkError(
            "--repeats and --threads must be at least 1, --rounds and --passes at least 0"
        )
    if args.rounds == 0 and not _has_profile(args):
        raise BenchmarkError(
            "--rounds 0 measures only a profile; add --modules, --picture or --trace"
        )
    check_output_option("--trace", args.trace)
    check_output_option("--picture", args.picture)


def _has_profile(args: argparse.Namespace) -> bool:
    return args.modules or args.trace is not None or args.picture is not None


def _measure_limits(
    config: RunConfig, metrics: StepMetrics, args: argparse.Namespace
) -> StepMetrics:
    """Add the FLOPs of a step and the FLOP/s of large matrix products, if any step was timed."""
    if not any(sides["ours"].seconds for sides in metrics.passes.values()):
        return metrics
    flops = MetaStep.build(config, kernels="reference", precision=args.precision).count_flops()
    metrics.flops.update({str(passes): flops.of_step(passes) for passes in args.passes})
    args.record.save(metrics)
    matmul = measure_matmul(args.precision, device=config.device, threads=args.threads)
    return dataclasses.replace(metrics, matmul_flops_per_second=matmul)


def what_runs(kernels: str, device: str) -> str:
    """Return a clause about the implementation that a kernels option resolves to on a device.

    For example "which are cpu". It has the reason if "auto" resolves to the reference kernels.
    """
    resolved = resolve_auto(
        KernelConfig.all(kernels), resolve_device(device, local_rank=0)
    ).layer_norm
    reason = unsupported_reason() if kernels == "auto" and resolved == "reference" else None
    return f"which are {resolved}" + ("" if reason is None else f": {reason}")


def _measure_passes(
    passes: int,
    sides: Mapping[str, Callable[[], Iterator[StepTimes]]],
    metrics: StepMetrics,
    args: argparse.Namespace,
) -> None:
    """Alternate the implementations, and save the record after every step that one reports."""
    times = {side: SideTimes() for side in sides}
    metrics.passes[str(passes)] = times
    for _ in tracked(range(args.rounds), what=f"{passes} recycling iterations", unit="round"):
        for side, run in sides.items():
            before = times[side]
            try:
                # Each report contains all steps of this round so far.
                for steps in run():
                    times[side] = before.with_round(steps)
                    args.record.save(metrics)
            except BenchmarkError as error:
                metrics.failures.append(f"{passes} recycling iterations, {side}: {error}")
                args.record.save(metrics)
                return


def _ours(
    args: argparse.Namespace, passes: int, features: Path, kind: type[Steps]
) -> Iterator[Steps]:
    """Run our steps in a separate process. With `kind` ProfiledSteps, a step is also profiled."""
    is_profiled = issubclass(kind, ProfiledSteps)
    settings = StepSettings(
        preset=args.preset,
        kernels=args.kernels,
        precision=args.precision,
        graphs=_GRAPHS[args.graphs],
        passes=passes,
        repeats=args.repeats,
        threads=args.threads,
        features=str(features),
        modules=is_profiled,
        trace=str(args.trace) if is_profiled and args.trace is not None else None,
    )
    for steps in run_probe(_PROBE, settings, name="a process that times our steps"):
        yield from_json(kind, steps)


def report(metrics: StepMetrics) -> str:
    """Format times by number of recycling iterations, their mean, and the profile.

    Ratios to the MLCommons reference are included if it was measured.
    """
    rows, medians = [], []
    for passes, sides in metrics.passes.items():
        stats_of = {
            side: TimingStats.of(times.seconds) for side, times in sides.items() if times.seconds
        }
        peaks = {side: max(sides[side].peak_memory_bytes) for side in stats_of}
        if "ours" in stats_of:
            medians.append(stats_of["ours"].median)
        for side, stats in stats_of.items():
            rate = metrics.flops[passes] / stats.median
            share = rate / (metrics.matmul_flops_per_second or float("nan"))
            peak = f"{peaks[side] / _MEBIBYTE:.0f}"
            row = [f"{passes} {side}", stats.text(3), f"{rate / 1e12:.2f}", f"{share:.0%}", peak]
            rows.append(row)
        if {"ours", "reference"} <= stats_of.keys():
            ratio = stats_of["ours"].ratio_to(stats_of["reference"])
            peak = f"{peaks['ours'] / peaks['reference']:.2f}"
            rows.append([f"{passes} ratio", ratio.text(2), "", "", peak])
    header = ["recycling iterations", "s/step", "TFLOP/s", "of matmul", "peak memory, MiB"]
    parts = [
        f"step of {metrics.preset} with {metrics.kernels} kernels ({metrics.ran}) in "
        f"{metrics.precision}, {metrics.threads} CPU threads, graphs: {metrics.graphs}"
    ]
    if rows:
        parts.append(table(rows, header=header))
    if len(medians) > 1:
        mean = sum(medians) / len(medians)
        parts.append(f"ours, mean over these numbers of iterations: {mean:.3f} s/step")
    if metrics.profile is not None:
        parts.append(_profile_report(metrics.profile))
    return "\n\n".join(parts)


def _profile_report(profile: ProfiledSteps) -> str:
    modules = sorted(profile.modules.items(), key=lambda item: -item[1].both)
    rows = [
        [name, f"{1e3 * times.forward:.1f}", f"{1e3 * times.backward:.1f}"]
        for name, times in modules
    ]
    count = profile.launches
    launches = "" if count is None else f"launches per step: {count:,}\n\n"
    header = ["module (sum over blocks, includes submodules)", "forward, ms", "backward, ms"]
    return launches + table(rows, header=header)


def headline(metrics: StepMetrics) -> str:
    """Summarize the times by number of recycling iterations, and ratios to the reference."""
    parts = []
    for passes, sides in metrics.passes.items():
        ours = TimingStats.of(sides["ours"].seconds)
        text = f"{passes} recycling iterations {ours.median:.3f} s/step"
        if "reference" in sides:
            ratio = TimingStats.of(sides["reference"].seconds).ratio_to(ours)
            text += f", MLCommons reference {ratio.median:.2f}x as long"
        parts.append(text)
    setup = f"{metrics.preset} {metrics.precision}, kernels {metrics.kernels}"
    return f"{setup}: {'; '.join(parts)}"
