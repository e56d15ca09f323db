"""`perf tune`: time the kernels of a training step with other launch options.

Tries other numbers of warps and stages and writes the tuning file of this GPU.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import pprint
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmark.command_line import BenchmarkError
from benchmark.machine import describe_versions
from benchmark.perf.resources import step_launches
from benchmark.perf.tools.limits import best_seconds
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.needs_triton import import_with_triton
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.train.precision import PRECISIONS, matmul_precision

WARPS, STAGES = (2, 4, 8, 16), (1, 2, 3, 4)
_WORTH_IT = 0.97
"""Other options are chosen only if their time is below this share of the default options' time.

Smaller differences are noise.
"""

Timer = Callable[[Any, tuple[int, ...], tuple, dict[str, Any]], float | None]
"""(kernel, grid, arguments, options) -> seconds; None if the GPU cannot run it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="mlperf_reference",
        choices=preset_names(),
        help="preset for the shapes (default: mlperf_reference)",
    )
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS, help="default: bf16")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file to write (default: the GPU's file in openfold_opt/kernels/triton/tuning)",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Write the tuning file, and return the times of the default and the chosen options.

    Raises:
        BenchmarkError: There is no GPU, or its name has no file, or a kernel cannot run on it.
    """
    tables = import_with_triton("openfold_opt.kernels.triton.tuning.tuned_options")
    if not torch.cuda.is_available():
        raise BenchmarkError(
            "perf tune times kernels on a GPU, and PyTorch finds none; run it on the machine to "
            "tune for"
        )
    chip = torch.cuda.get_device_name()
    output = args.out if args.out is not None else _default_file(tables, chip)
    with matmul_precision(args.precision):
        launches = step_launches(
            MetaStep.build(build_preset(args.preset), kernels="triton", precision=args.precision)
        )
        tuned = tune(launches, time_on_gpu, key_of=tables.launch_key)
    output.write_text(
        format_file(tuned, chip=chip, preset=args.preset, precision=args.precision),
        encoding="utf-8",
    )
    return {
        "chip": chip,
        "preset": args.preset,
        "precision": args.precision,
        "file": str(output),
        "launches": tuned,
    }


def _default_file(tables: Any, chip: str) -> Path:
    name = tables.file_name(chip)
    if name is None:
        raise BenchmarkError(
            f"the device name {chip!r} does not contain a known GPU model; give a file with --out"
        )
    return Path(tables.__file__).with_name(f"{name}.py")


def tune(launches: list[tuple], timer: Timer, *, key_of: Callable[..., str]) -> dict[str, Any]:
    """Choose the fastest options of each kind of launch, over all its shapes in the step.

    Returns:
        key -> {"written", "chosen", "options"}. "written" and "chosen" are the seconds of all its
        launches in a step with the default and the chosen options. "options" are the chosen warps
        and stages, empty if the defaults are kept.
    """
    by_key: dict[str, list[tuple]] = {}
    for launch in launches:
        kernel, _, arguments, options = launch
        by_key.setdefault(key_of(kernel, arguments, options), []).append(launch)
    return {
        key: _tune_one(same, timer)
        for key, same in tracked(sorted(by_key.items()), what="tune", unit="kernel")
    }


def _tune_one(launches: list[tuple], timer: Timer) -> dict[str, Any]:
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
    chosen, best = {}, written * _WORTH_IT
    for warps, stages in itertools.product(WARPS, STAGES):
        changes = {"num_warps": warps, "num_stages": stages}
        candidate = seconds(changes)
        if candidate is not None and candidate < best:
            chosen, best = changes, candidate
    return {"written": written, "chosen": best if chosen else written, "options": chosen}


def time_on_gpu(
    kernel: Any, grid: tuple[int, ...], arguments: tuple, options: dict[str, Any]
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


def format_file(tuned: dict[str, Any], *, chip: str, preset: str, precision: str) -> str:
    """Return the source of a GPU's tuning file."""
    options = {key: entry["options"] for key, entry in tuned.items() if entry["options"]}
    date = datetime.date.today().isoformat()
    command = f"python -m benchmark perf tune --preset {preset} --precision {precision}"
    versions = pprint.pformat(describe_versions(), width=120)
    return (
        f'"""Launch options for {chip}: written by `{command}`."""\n\n'
        f"CHIP = {chip!r}\nDATE = {date!r}\nVERSIONS = {versions}\n\n"
        f"OPTIONS = {pprint.pformat(options, width=140)}\n"
    )


def report(metrics: dict[str, Any]) -> str:
    """Format a row for each launch, the slowest first, and the sum."""
    launches = sorted(metrics["launches"].items(), key=lambda item: -item[1]["written"])
    rows = [
        [
            key,
            f"{1e3 * entry['written']:.3f}",
            f"{1e3 * entry['chosen']:.3f}",
            str(entry["options"] or "default"),
        ]
        for key, entry in launches
    ]
    sums = [
        f"{1e3 * sum(entry[column] for _, entry in launches):.3f}"
        for column in ("written", "chosen")
    ]
    header = ["launch", "default, ms per step", "chosen", "options"]
    return (
        f"{metrics['chip']}, {metrics['preset']} in {metrics['precision']}: {metrics['file']}\n\n"
        + table([*rows, ["total", *sums, ""]], header=header)
    )
