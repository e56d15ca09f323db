"""`perf step`: seconds and peak memory of a training step, beside the reference's in turn."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.errors import BenchmarkError
from benchmark.perf.can_run import device_for
from benchmark.perf.limits import measure_matmul
from benchmark.perf.meta_step import MetaStep
from benchmark.perf.picture import draw_module_times
from benchmark.perf.probe import run_probe
from benchmark.perf.reference import Reference
from benchmark.perf.timing_stats import TimingStats, table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.kernels.cpu.library import unsupported_reason
from openfold_opt.kernels.select import IMPLEMENTATIONS, KernelConfig
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.precision import PRECISIONS
from openfold_opt.train.synthetic_features import synthetic_batch

_MEBIBYTE = 2**20
_GRAPHS = {"preset": None, "on": True, "off": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="middle",
        choices=preset_names(),
        help="sizes, precision, device (default: middle, which a CPU can carry)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=IMPLEMENTATIONS,
        help="implementation of all operations (default: auto, the one for the device)",
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
        help="recycling passes without gradient (default: 0)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="timed steps of each round (default: 3)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        metavar="N",
        help="how often the sides take turns; 0: only the profile (default: 2)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of PyTorch on a CPU (default: 1)"
    )
    parser.add_argument(
        "--modules", action="store_true", help="where the time of a step goes, by module"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="that as a picture (.png or .svg)"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="the profile (.json or .json.gz), for https://ui.perfetto.dev",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help="folder openfold of a checkout of mlcommons/hpc; CPU only, float32, its own recomputation",
    )
    parser.add_argument(
        "--reference-python",
        default=sys.executable,
        metavar="PYTHON",
        help="interpreter with what the reference needs (default: this one)",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the steps, then the profile if asked for, then what the machine reaches at best.

    Returns:
        Seconds of every step and peak memory of every process, by side and number of passes. A
        number of passes that fails, for example in the capture of its graph, is a line of
        "failures"; the others are measured nevertheless.
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
            # of the last number of passes
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
            raise BenchmarkError(f"{path}: the folder {path.parent} does not exist; make it first")


def _has_profile(args: argparse.Namespace) -> bool:
    return args.modules or args.trace is not None or args.picture is not None


def _measure_limits(config: RunConfig, metrics: dict[str, Any], args: argparse.Namespace) -> None:
    """Operations of a step and the speed of a matrix product; times come before them."""
    if not any(found["ours"]["seconds"] for found in metrics["passes"].values()):
        return
    flops = MetaStep.build(config, kernels="reference", precision=args.precision).count_flops()
    metrics["flops"] = {str(passes): flops.of_step(passes) for passes in args.passes}
    args.record.save(metrics)
    metrics["matmul_flops_per_second"] = measure_matmul(
        args.precision, device=config.device, threads=args.threads
    )


def what_runs(kernels: str, device: str) -> str:
    """The implementation that a name means on the device of a preset, and why where it is not the fast one."""
    resolved = KernelConfig.all(kernels).resolved(resolve_device(device, local_rank=0)).layer_norm
    reason = unsupported_reason() if kernels == "auto" and resolved == "reference" else None
    return f"which are {resolved}" + ("" if reason is None else f": {reason}")


def _measure_passes(
    passes: int,
    sides: dict[str, Callable[[], Iterator[dict[str, Any]]]],
    metrics: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Let the sides take turns, and save the record after every step that a side reports."""
    found: dict[str, Any] = {side: {"seconds": [], "peak_memory_bytes": []} for side in sides}
    metrics["passes"][str(passes)] = found
    for _ in tracked(range(args.rounds), what=f"{passes} passes", unit="round"):
        for side, run in sides.items():
            before = found[side]
            try:
                for record in run():
                    peaks = [*before["peak_memory_bytes"], record["peak_memory_bytes"]]
                    seconds = before["seconds"] + record["seconds"]
                    found[side] = {"seconds": seconds, "peak_memory_bytes": peaks}
                    args.record.save(metrics)
            except BenchmarkError as error:
                metrics["failures"].append(f"{passes} passes, {side}: {error}")
                args.record.save(metrics)
                return


def _ours(
    args: argparse.Namespace, passes: int, features: Path, *, modules: bool = False
) -> Iterator[dict[str, Any]]:
    settings = {name: getattr(args, name) for name in ("preset", "kernels", "precision", "threads")}
    settings |= {"repeats": args.repeats, "graphs": _GRAPHS[args.graphs]}
    settings |= {"passes": passes, "features": str(features), "modules": modules}
    settings["trace"] = str(args.trace) if modules and args.trace is not None else None
    return run_probe("benchmark.perf.step_probe", settings, name="a process that times our steps")


def report(metrics: dict[str, Any]) -> str:
    """A table by number of passes, with ratios where there is a reference; the mean over the passes; modules by time."""
    rows, medians = [], []
    for passes, sides in metrics["passes"].items():
        timing_stats_of = {
            side: TimingStats.of(found["seconds"])
            for side, found in sides.items()
            if found["seconds"]
        }
        peaks = {side: max(sides[side]["peak_memory_bytes"]) for side in timing_stats_of}
        if "ours" in timing_stats_of:
            medians.append(timing_stats_of["ours"].median)
        for side, timing_stats in timing_stats_of.items():
            rate = metrics["flops"][passes] / timing_stats.median
            share = rate / metrics["matmul_flops_per_second"]
            seconds = (
                f"{timing_stats.median:.3f} ({timing_stats.low:.3f} to {timing_stats.high:.3f})"
            )
            rows.append(
                [
                    f"{passes} {side}",
                    seconds,
                    f"{rate / 1e12:.2f}",
                    f"{share:.0%}",
                    f"{peaks[side] / _MEBIBYTE:.0f}",
                ]
            )
        if {"ours", "reference"} <= timing_stats_of.keys():
            ratio = timing_stats_of["ours"].ratio_to(timing_stats_of["reference"])
            seconds = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
            rows.append(
                [f"{passes} ratio", seconds, "", "", f"{peaks['ours'] / peaks['reference']:.2f}"]
            )
    header = ["passes without gradient", "s/step", "TFLOP/s", "of matmul", "peak memory, MiB"]
    parts = [
        "step of {preset} with {kernels} kernels ({ran}) in {precision}, {threads} CPU threads, "
        "graphs: {graphs}".format(**metrics)
    ]
    if rows:
        parts.append(table(rows, header=header))
    if len(medians) > 1:
        mean = sum(medians) / len(medians)
        parts.append(f"ours, mean over these numbers of passes: {mean:.3f} s/step")
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
    launches = "" if count is None else f"launches of a step: {count:,}\n\n"
    header = ["module, all blocks; a module includes its parts", "forward, ms", "backward, ms"]
    return launches + table(rows, header=header)
