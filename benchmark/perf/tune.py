"""`perf tune`: times the kernels of a training step with other numbers of warps and stages, and writes the file of this chip."""

from __future__ import annotations

import argparse
import datetime
import itertools
import pprint
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmark.errors import BenchmarkError
from benchmark.machine import describe_versions
from benchmark.perf.limits import best_seconds
from benchmark.perf.meta_step import MetaStep
from benchmark.perf.needs_triton import import_with_triton
from benchmark.perf.resources import step_launches
from benchmark.perf.timing_stats import table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.train.precision import PRECISIONS, matmul_precision

WARPS, STAGES = (2, 4, 8, 16), (1, 2, 3, 4)
_WORTH_IT = 0.97
"""Share of the time with the written options below which others are taken: less is noise."""

Timer = Callable[[Any, tuple[int, ...], tuple, dict[str, Any]], float | None]
"""(kernel, grid, arguments, options) -> seconds; None where the chip cannot run it so."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="mlperf_reference",
        choices=preset_names(),
        help="whose shapes (default: mlperf_reference)",
    )
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS, help="default: bf16")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: the chip's file in openfold_opt/kernels/triton/tuning",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Times of the written and of the chosen options by launch; writes the file."""
    tables = import_with_triton("openfold_opt.kernels.triton.tuning.tables")
    if not torch.cuda.is_available():
        raise BenchmarkError(
            "perf tune times kernels on a GPU, and PyTorch sees none; run it on the machine that is to be tuned for"
        )
    chip = torch.cuda.get_device_name()
    output = args.out if args.out is not None else _default_file(tables, chip)
    with matmul_precision(args.precision):
        launches = step_launches(
            MetaStep.build(build_preset(args.preset), kernels="triton", precision=args.precision)
        )
        found = tune(launches, time_on_gpu, key_of=tables.launch_key)
    output.write_text(
        format_file(found, chip=chip, preset=args.preset, precision=args.precision),
        encoding="utf-8",
    )
    return {
        "chip": chip,
        "preset": args.preset,
        "precision": args.precision,
        "file": str(output),
        "launches": found,
    }


def _default_file(tables: Any, chip: str) -> Path:
    name = tables.file_name(chip)
    if name is None:
        raise BenchmarkError(
            f"the device calls itself {chip!r}, which has no name of a chip in it; name a file with --out"
        )
    return Path(tables.__file__).with_name(f"{name}.py")


def tune(launches: list[tuple], timer: Timer, *, key_of: Callable[..., str]) -> dict[str, Any]:
    """For each kind of launch the options that are fastest over all its shapes in the step.

    Returns:
        key -> {"written", "chosen": seconds of all its launches in a step, "options": warps and stages, empty if the written ones stay}.
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
            found = timer(kernel, grid, arguments, options | changes)
            if found is None:
                return None
            total += count * found
        return total

    written = seconds({})
    if written is None:
        raise BenchmarkError(
            "a kernel cannot run on this chip with the options it was written with; `perf resources` tells which and why"
        )
    chosen, best = {}, written * _WORTH_IT
    for warps, stages in itertools.product(WARPS, STAGES):
        changes = {"num_warps": warps, "num_stages": stages}
        found = seconds(changes)
        if found is not None and found < best:
            chosen, best = changes, found
    return {"written": written, "chosen": best if chosen else written, "options": chosen}


def time_on_gpu(
    kernel: Any, grid: tuple[int, ...], arguments: tuple, options: dict[str, Any]
) -> float | None:
    """Of the kernel alone, on random numbers of the shapes and strides of the meta tensors among the arguments."""
    does_not_fit = import_with_triton("openfold_opt.kernels.triton.launch").DOES_NOT_FIT
    real = tuple(materialise(x) if isinstance(x, torch.Tensor) else x for x in arguments)
    try:
        return best_seconds(lambda: kernel[grid](*real, **options), device=torch.device("cuda"))
    except does_not_fit:
        return None


def materialise(x: torch.Tensor, device: str = "cuda") -> torch.Tensor:
    """Random numbers in the shape and strides of x."""
    # of a dim that is spread over one place there is one element to fill
    once = [1 if stride == 0 else size for size, stride in zip(x.shape, x.stride())]
    real = torch.empty_strided(once, x.stride(), dtype=x.dtype, device=device)
    return (real.normal_() if x.is_floating_point() else real.zero_()).expand(x.shape)


def format_file(found: dict[str, Any], *, chip: str, preset: str, precision: str) -> str:
    """The source of a chip's file."""
    options = {key: entry["options"] for key, entry in found.items() if entry["options"]}
    date = datetime.date.today().isoformat()
    return (
        f'"""Launch options for {chip}: written by `python -m benchmark perf tune --preset {preset} --precision {precision}`."""\n\n'
        f"CHIP = {chip!r}\nDATE = {date!r}\nVERSIONS = {pprint.pformat(describe_versions(), width=120)}\n\n"
        f"OPTIONS = {pprint.pformat(options, width=140)}\n"
    )


def report(metrics: dict[str, Any]) -> str:
    """A row for each launch, the slowest first, and the sum."""
    launches = sorted(metrics["launches"].items(), key=lambda item: -item[1]["written"])
    rows = [
        [
            key,
            f"{1e3 * e['written']:.3f}",
            f"{1e3 * e['chosen']:.3f}",
            str(e["options"] or "as written"),
        ]
        for key, e in launches
    ]
    sums = [
        f"{1e3 * sum(entry[way] for _, entry in launches):.3f}" for way in ("written", "chosen")
    ]
    header = ["launch", "written, ms of a step", "chosen", "options"]
    return (
        f"{metrics['chip']}, {metrics['preset']} in {metrics['precision']}: {metrics['file']}\n\n"
        + table([*rows, ["all", *sums, ""]], header=header)
    )
