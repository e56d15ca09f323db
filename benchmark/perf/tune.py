"""`perf tune`: time the kernels of a training step with other launch options.

Tries other numbers of warps and stages, for each size of a launch at each number of ranks that
share a sample, and writes the tuning file of this GPU.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import math
import pprint
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.command_line import BenchmarkError
from benchmark.machine import describe_versions
from benchmark.perf.resources import step_launches
from benchmark.perf.tools.can_run import import_with_triton
from benchmark.perf.tools.limits import best_seconds
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.options import add_preset
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset
from data_prep.progress import tracked
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.precision import PRECISIONS, matmul_precision

WARPS, STAGES = (2, 4, 8, 16), (1, 2, 3, 4)
DAP_SIZES = [1, 2, 4, 8]
_WORTH_IT = 0.97
"""Other options are chosen only if their time is below this share of the default options' time.

Smaller differences are noise.
"""

Timer = Callable[[Any, tuple[int, ...], tuple, dict[str, object]], float | None]
"""(kernel, grid, arguments, options) -> seconds; None if the GPU cannot run it."""


@dataclass(frozen=True, kw_only=True)
class TunedLaunch:
    """The fastest options of one kind and size of launch."""

    key: str
    """Key of the launch in the tuning file."""
    programs: int
    """Size of its grid."""
    written: float
    """Seconds of all its launches, in a step of each DAP size, with the default options."""
    chosen: float
    """The same with the chosen options."""
    options: dict[str, int]
    """Chosen warps and stages, empty if the defaults are kept."""


@dataclass(frozen=True, kw_only=True)
class TuneMetrics:
    """Times of the default and the chosen options."""

    chip: str
    preset: str
    precision: str
    file: str
    """The tuning file that was written."""
    dap: list[int]
    """Sizes of the DAP group."""
    launches: list[TunedLaunch]


METRICS = TuneMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_preset(parser, default="mlperf_reference")
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS, help="default: bf16")
    parser.add_argument(
        "--dap",
        type=int,
        nargs="+",
        default=DAP_SIZES,
        metavar="N",
        help=f"sizes of the DAP group (default: {' '.join(map(str, DAP_SIZES))})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file to write (default: the GPU's file in openfold_opt/kernels/triton/tuning)",
    )


def measure(args: argparse.Namespace) -> TuneMetrics:
    """Write the tuning file, and return the times of the default and the chosen options.

    Raises:
        BenchmarkError: There is no GPU, or its model is unknown and --out is missing, or a kernel
        cannot run on it.
    """
    tuned_options = import_with_triton("openfold_opt.kernels.triton.tuning.tuned_options")
    if not torch.cuda.is_available():
        raise BenchmarkError(
            "perf tune times kernels on a GPU, and PyTorch finds none; run it on the machine to "
            "tune for"
        )
    chip = torch.cuda.get_device_name()
    output = args.out if args.out is not None else _default_file(tuned_options, chip)
    config = build_preset(args.preset)
    with matmul_precision(args.precision):
        launches = [
            launch
            for size in args.dap
            for launch in step_launches(
                MetaStep.build(
                    config,
                    kernels="triton",
                    precision=args.precision,
                    dap=counted_axis(config.parallel, size=size),
                )
            )
        ]
        tuned = tune(launches, time_on_gpu, key_of=tuned_options.launch_key)
    metrics = TuneMetrics(
        chip=chip,
        preset=args.preset,
        precision=args.precision,
        file=str(output),
        dap=args.dap,
        launches=tuned,
    )
    output.write_text(format_file(metrics), encoding="utf-8")
    return metrics


def _default_file(tuned_options: Any, chip: str) -> Path:
    name = tuned_options.file_name(chip)
    if name is None:
        raise BenchmarkError(
            f"the device name {chip!r} does not contain a known GPU model; give a file with --out"
        )
    return Path(tuned_options.__file__).with_name(f"{name}.py")


def tune(launches: list[tuple], timer: Timer, *, key_of: Callable[..., str]) -> list[TunedLaunch]:
    """Choose the options with the least total time for each kind and size of launch.

    A kind is what a key of the tuning file stands for, the size is the number of programs.
    """
    kinds: dict[tuple[str, int], list[tuple]] = {}
    for launch in launches:
        kernel, grid, arguments, options = launch
        kind = key_of(kernel, arguments, options), math.prod(grid)
        kinds.setdefault(kind, []).append(launch)
    return [
        _tune_one(same, timer, key=key, programs=programs)
        for (key, programs), same in tracked(sorted(kinds.items()), what="tune", unit="launch")
    ]


def _tune_one(launches: list[tuple], timer: Timer, *, key: str, programs: int) -> TunedLaunch:
    # Grid and layout -> number of launches, one of them. Equal launches are timed once.
    shapes: dict[Any, list] = {}
    for kernel, grid, arguments, options in launches:
        layout = tuple(
            (tuple(x.shape), x.stride()) if isinstance(x, torch.Tensor) else x for x in arguments
        )
        entry = shapes.setdefault((grid, layout), [0, (kernel, grid, arguments, options)])
        entry[0] += 1

    def seconds(changes: dict[str, int]) -> float | None:
        total = 0.0
        for count, (kernel, grid, arguments, options) in shapes.values():
            launch_seconds = timer(kernel, grid, arguments, options | changes)
            if launch_seconds is None:
                return None
            total += count * launch_seconds
        return total

    written = seconds({})
    if written is None:
        raise BenchmarkError(
            "a kernel cannot run on this GPU with its default options; `perf resources` shows "
            "which and why"
        )
    chosen: dict[str, int] = {}
    best = written * _WORTH_IT
    for warps, stages in itertools.product(WARPS, STAGES):
        changes = {"num_warps": warps, "num_stages": stages}
        candidate = seconds(changes)
        if candidate is not None and candidate < best:
            chosen, best = changes, candidate
    return TunedLaunch(
        key=key,
        programs=programs,
        written=written,
        chosen=best if chosen else written,
        options=chosen,
    )


def time_on_gpu(
    kernel: Any, grid: tuple[int, ...], arguments: tuple, options: dict[str, object]
) -> float | None:
    """Time a kernel on random tensors with the shapes and strides of the meta tensors.

    Returns:
        Seconds, or None if the kernel does not fit on the GPU.
    """
    does_not_fit = import_with_triton("openfold_opt.kernels.triton.launching").DOES_NOT_FIT
    real = tuple(materialize(x) if isinstance(x, torch.Tensor) else x for x in arguments)
    try:
        return best_seconds(lambda: kernel[grid](*real, **options), device=torch.device("cuda"))
    except does_not_fit:
        return None


def materialize(x: torch.Tensor, device: str = "cuda") -> torch.Tensor:
    """Return a tensor with the shape and strides of x, random if floating point, else zeros."""
    # A dim of stride 0 has a single element in memory.
    stored = [1 if stride == 0 else size for size, stride in zip(x.shape, x.stride())]
    real = torch.empty_strided(stored, x.stride(), dtype=x.dtype, device=device)
    return (real.normal_() if x.is_floating_point() else real.zero_()).expand(x.shape)


def format_file(metrics: TuneMetrics) -> str:
    """Return the source of a GPU's tuning file.

    A kind of launch is in it if any of its sizes has other options than the default ones.
    """
    options: dict[str, dict[int, dict[str, int]]] = {}
    for entry in metrics.launches:
        options.setdefault(entry.key, {})[entry.programs] = entry.options
    options = {key: sizes for key, sizes in options.items() if any(sizes.values())}
    command = (
        f"python -m benchmark perf tune --preset {metrics.preset} --precision {metrics.precision} "
        f"--dap {' '.join(map(str, metrics.dap))}"
    )
    facts = {
        "CHIP": metrics.chip,
        "DATE": datetime.date.today().isoformat(),
        "PRESET": metrics.preset,
        "PRECISION": metrics.precision,
        "DAP_SIZES": metrics.dap,
    }
    lines = "".join(f"{name} = {value!r}\n" for name, value in facts.items())
    versions = pprint.pformat(describe_versions(), width=120)
    return (
        f'"""Launch options for {metrics.chip}: written by `{command}`."""\n\n'
        f"{lines}VERSIONS = {versions}\n\n"
        f"OPTIONS = {pprint.pformat(options, width=140)}\n"
    )


def report(metrics: TuneMetrics) -> str:
    """Format a row for each launch, the slowest first, and the sum."""
    launches = sorted(metrics.launches, key=lambda entry: -entry.written)
    rows = [
        [
            entry.key,
            f"{entry.programs:,}",
            f"{1e3 * entry.written:.3f}",
            f"{1e3 * entry.chosen:.3f}",
            str(entry.options or "default"),
        ]
        for entry in launches
    ]
    sums = [f"{1e3 * total:.3f}" for total in _seconds_of_step(metrics)]
    header = ["launch", "programs", "default, ms per step", "chosen", "options"]
    sizes = ", ".join(map(str, metrics.dap))
    title = f"{metrics.chip}, {metrics.preset} in {metrics.precision}, DAP {sizes}: {metrics.file}"
    return f"{title}\n\n" + table([*rows, ["total", "", *sums, ""]], header=header)


def _seconds_of_step(metrics: TuneMetrics) -> tuple[float, float]:
    """Return the seconds of all kernels with the default and the chosen options."""
    launches = metrics.launches
    return sum(entry.written for entry in launches), sum(entry.chosen for entry in launches)


def headline(metrics: TuneMetrics) -> str:
    """Summarize the time of all kernels of a step."""
    default, chosen = _seconds_of_step(metrics)
    return (
        f"{metrics.preset} {metrics.precision} on {metrics.chip}: kernels of a step at DAP "
        f"{', '.join(map(str, metrics.dap))} take "
        f"{1e3 * chosen:.3f} ms, with default options {1e3 * default:.3f} ms"
    )
