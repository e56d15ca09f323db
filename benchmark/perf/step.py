"""`perf step`: measure time and peak memory of a training step, and of the MLCommons reference."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.can_run import device_for
from benchmark.perf.tools.limits import measure_matmul
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.mlcommons_reference import Reference
from benchmark.perf.tools.picture import draw_module_times
from benchmark.perf.tools.probe import run_probe
from benchmark.perf.tools.timing_stats import TimingStats, table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.kernels.cpu.library import unsupported_reason
from openfold_opt.kernels.select import IMPLEMENTATIONS, KernelConfig
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.precision import PRECISIONS
from openfold_opt.train.synthetic_features import synthetic_batch

_PROBE = "benchmark.perf.subprocesses.step_probe"
_MEBIBYTE = 2**20
_GRAPHS = {"preset": None, "on": True, "off": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="middle",
        choices=preset_names(),
        help="preset for sizes, precision and device (default: middle, which a CPU can run)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=IMPLEMENTATIONS,
        help="implementation of all operations (default: auto, chosen for the device)",
    )
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
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="timed steps of each round (default: 3)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        metavar="N",
        help="rounds in which ours and the reference alternate; 0: only the profile (default: 2)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="PyTorch CPU threads (default: 1)"
    )
    _add_profile_arguments(parser)
    _add_reference_arguments(parser)


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


def _add_reference_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("MLCommons reference")
    group.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help=(
            "folder openfold of a checkout of mlcommons/hpc; runs on a CPU in float32 with its "
            "own recomputation"
        ),
    )
    group.add_argument(
        "--reference-python",
        default=sys.executable,
        metavar="PYTHON",
        help=(
            "interpreter that can import the packages of the MLCommons reference (default: this "
            "one)"
        ),
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the steps, then the profile if requested, then the machine's limits.

    Returns:
        "passes": seconds of every step and peak memory of every process, by number of recycling
        iterations and implementation. "failures": a line for each number that failed, for example
        in graph capture; the others are measured nevertheless.
    """
    _check(args)
    reference = None
    if args.reference is not None:
        reference = Reference(checkout=args.reference.resolve(), python=args.reference_python)
        reference.check()
    config = build_preset(args.preset)
    args.precision = args.precision or config.precision
    names = ("preset", "kernels", "precision", "threads", "graphs")
    metrics: dict[str, Any] = {name: getattr(args, name) for name in names}
    device_for(config, kernels=args.kernels, precision=args.precision)
    metrics["ran"] = what_runs(args.kernels, config.device)
    metrics |= {"passes": {}, "flops": {}, "failures": []}
    with tempfile.TemporaryDirectory(prefix="perf-step-") as folder:
        for passes in args.passes:
            features = Path(folder, f"features_{passes}.npz")
            batch = synthetic_batch(
                config.data, batch_size=config.local_batch_size, num_passes=passes + 1
            )
            np.savez(features, **{name: value.numpy() for name, value in batch.items()})
            sides = {"ours": lambda k=passes, f=features: _ours(args, k, f)}
            if reference is not None:
                options = {
                    "blocks": config.model.evoformer_stack.num_blocks,
                    "passes": passes,
                    "repeats": args.repeats,
                    "threads": args.threads,
                }
                sides["reference"] = lambda f=features, o=options: iter([reference.step(f, **o)])
            _measure_passes(passes, sides, metrics, args)
        if _has_profile(args):
            # The profile is of the last number of recycling iterations.
            for profile in _ours(args, passes, features, modules=True):
                metrics["profile"] = profile
                args.record.save(metrics)
    _measure_limits(config, metrics, args)
    if args.picture is not None:
        draw_module_times(metrics["profile"]["modules"], args.picture)
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
    for path in (args.trace, args.picture):
        if path is not None and not path.parent.is_dir():
            raise BenchmarkError(
                f"{path}: the folder {path.parent} does not exist; create it first"
            )


def _has_profile(args: argparse.Namespace) -> bool:
    return args.modules or args.trace is not None or args.picture is not None


def _measure_limits(config: RunConfig, metrics: dict[str, Any], args: argparse.Namespace) -> None:
    """Add the FLOPs of a step and the FLOP/s of a matrix product, if any step was timed."""
    if not any(sides["ours"]["seconds"] for sides in metrics["passes"].values()):
        return
    flops = MetaStep.build(config, kernels="reference", precision=args.precision).count_flops()
    metrics["flops"] = {str(passes): flops.of_step(passes) for passes in args.passes}
    args.record.save(metrics)
    metrics["matmul_flops_per_second"] = measure_matmul(
        args.precision, device=config.device, threads=args.threads
    )


def what_runs(kernels: str, device: str) -> str:
    """Describe the implementation that a kernels option resolves to on a device.

    Includes the reason if "auto" resolves to the reference kernels.
    """
    resolved = KernelConfig.all(kernels).resolved(resolve_device(device, local_rank=0)).layer_norm
    reason = unsupported_reason() if kernels == "auto" and resolved == "reference" else None
    return f"which are {resolved}" + ("" if reason is None else f": {reason}")


def _measure_passes(
    passes: int,
    sides: dict[str, Callable[[], Iterator[dict[str, Any]]]],
    metrics: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Alternate the implementations, and save the record after every step that one reports."""
    times: dict[str, Any] = {side: {"seconds": [], "peak_memory_bytes": []} for side in sides}
    metrics["passes"][str(passes)] = times
    for _ in tracked(range(args.rounds), what=f"{passes} recycling iterations", unit="round"):
        for side, run in sides.items():
            before = times[side]
            try:
                for record in run():
                    peaks = [*before["peak_memory_bytes"], record["peak_memory_bytes"]]
                    seconds = before["seconds"] + record["seconds"]
                    times[side] = {"seconds": seconds, "peak_memory_bytes": peaks}
                    args.record.save(metrics)
            except BenchmarkError as error:
                metrics["failures"].append(f"{passes} recycling iterations, {side}: {error}")
                args.record.save(metrics)
                return


def _ours(
    args: argparse.Namespace, passes: int, features: Path, *, modules: bool = False
) -> Iterator[dict[str, Any]]:
    settings = {name: getattr(args, name) for name in ("preset", "kernels", "precision", "threads")}
    settings |= {"repeats": args.repeats, "graphs": _GRAPHS[args.graphs]}
    settings |= {"passes": passes, "features": str(features), "modules": modules}
    settings["trace"] = str(args.trace) if modules and args.trace is not None else None
    return run_probe(_PROBE, settings, name="a process that times our steps")


def report(metrics: dict[str, Any]) -> str:
    """Format times by number of recycling iterations, their mean, and the profile.

    Ratios to the MLCommons reference are included if it was measured.
    """
    rows, medians = [], []
    for passes, sides in metrics["passes"].items():
        stats_of = {
            side: TimingStats.of(times["seconds"])
            for side, times in sides.items()
            if times["seconds"]
        }
        peaks = {side: max(sides[side]["peak_memory_bytes"]) for side in stats_of}
        if "ours" in stats_of:
            medians.append(stats_of["ours"].median)
        for side, stats in stats_of.items():
            rate = metrics["flops"][passes] / stats.median
            share = rate / metrics["matmul_flops_per_second"]
            seconds = f"{stats.median:.3f} ({stats.low:.3f} to {stats.high:.3f})"
            rows.append(
                [
                    f"{passes} {side}",
                    seconds,
                    f"{rate / 1e12:.2f}",
                    f"{share:.0%}",
                    f"{peaks[side] / _MEBIBYTE:.0f}",
                ]
            )
        if {"ours", "reference"} <= stats_of.keys():
            ratio = stats_of["ours"].ratio_to(stats_of["reference"])
            seconds = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
            rows.append(
                [f"{passes} ratio", seconds, "", "", f"{peaks['ours'] / peaks['reference']:.2f}"]
            )
    header = ["recycling iterations", "s/step", "TFLOP/s", "of matmul", "peak memory, MiB"]
    parts = [
        "step of {preset} with {kernels} kernels ({ran}) in {precision}, {threads} CPU threads, "
        "graphs: {graphs}".format(**metrics)
    ]
    if rows:
        parts.append(table(rows, header=header))
    if len(medians) > 1:
        mean = sum(medians) / len(medians)
        parts.append(f"ours, mean over these numbers of iterations: {mean:.3f} s/step")
    if "profile" in metrics:
        parts.append(_profile_report(metrics["profile"]))
    return "\n\n".join(parts)


def _profile_report(profile: dict[str, Any]) -> str:
    modules = sorted(profile["modules"].items(), key=lambda item: -sum(item[1].values()))
    rows = [
        [name, f"{1e3 * times['forward']:.1f}", f"{1e3 * times['backward']:.1f}"]
        for name, times in modules
    ]
    count = profile["launches"]
    launches = "" if count is None else f"launches per step: {count:,}\n\n"
    header = ["module (sum over blocks, includes submodules)", "forward, ms", "backward, ms"]
    return launches + table(rows, header=header)
