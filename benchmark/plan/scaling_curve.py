"""Speedup over GPUs of code bases with dynamic axial parallelism, as in NVIDIA's figure 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.plan.fitting import BENCHMARK_SHAPE, counts_of
from benchmark.plan.step_counts import NVIDIA, REFERENCE, CountTable
from benchmark.plan.step_model import Factors, Layout, predict_step
from benchmark.plan.systems import load_system
from benchmark.replace_file import save_picture

SYSTEM = "h100_sxm"
LARGEST_BATCHES: Mapping[str, int] = {REFERENCE: 128, NVIDIA: 256}
"""Code base -> the largest batch that its training is known to converge with.

128: the recipe of AlphaFold2 and OpenFold. 256: NVIDIA's run on 2,080 H100.
"""
PUBLISHED = {REFERENCE: (512, 40.0), NVIDIA: (2048, 180.0)}
"""Code base -> GPUs and speedup of the highest point of its curve in the figure."""

EQUAL_SHARE = 0.02
"""Twice the GPUs that are faster by less than this are no gain."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The fastest layout on a number of GPUs, all of which train."""

    num_gpus: int
    dap: int
    batch: int
    step_seconds: float
    speedup: float
    """Samples per second against the MLCommons reference on eight GPUs."""


def step_on(system: str, layout: Layout, table: CountTable, factors: Factors) -> float:
    """Return the seconds of a step with samples of the benchmark."""
    return predict_step(counts_of(layout, table), load_system(system), layout, factors).total


def samples_per_second(layout: Layout, table: CountTable, factors: Factors) -> float:
    """Return the samples per second of a layout on H100."""
    return layout.batch / step_on(SYSTEM, layout, table, factors)


def speedup(layout: Layout, table: CountTable, factors: Factors) -> float:
    """Return samples per second against the MLCommons reference on eight H100."""
    eight = Layout(code=REFERENCE, num_gpus=8)
    return samples_per_second(layout, table, factors) / samples_per_second(eight, table, factors)


def scaling_curve(code: str, table: CountTable, factors: Factors) -> list[CurvePoint]:
    """Return the fastest layout on 8, 16, 32 and more GPUs, up to the largest batch.

    More GPUs than samples of the largest batch need a larger DAP size. The curve ends where no DAP
    size within a node is large enough.

    Raises:
        BenchmarkError: The counts of all DAP sizes, or those of the reference, are missing.
    """
    sizes = [
        size
        for size in table.dap_sizes(code=code, shape=BENCHMARK_SHAPE)
        if size <= load_system(SYSTEM).gpus_per_node
    ]
    curve, num_gpus = [], 8
    while layouts := [
        layout
        for dap in sizes
        if (layout := Layout(code=code, num_gpus=num_gpus, dap=dap)).batch <= LARGEST_BATCHES[code]
    ]:
        fastest = max(layouts, key=lambda each: samples_per_second(each, table, factors))
        curve.append(
            CurvePoint(
                num_gpus=num_gpus,
                dap=fastest.dap,
                batch=fastest.batch,
                step_seconds=step_on(SYSTEM, fastest, table, factors),
                speedup=speedup(fastest, table, factors),
            )
        )
        num_gpus *= 2
    if not curve:
        raise BenchmarkError(f"no counts of {code}")
    return curve


def highest_point(curve: Sequence[CurvePoint]) -> CurvePoint:
    """Return the point with the fewest GPUs that no other is faster than by EQUAL_SHARE."""
    most = max(each.speedup for each in curve)
    return next(each for each in curve if most <= (1 + EQUAL_SHARE) * each.speedup)


def draw_curves(curves: Mapping[str, Sequence[CurvePoint]], path: Path) -> None:
    """Draw predicted speedups as lines, and the published points."""
    from benchmark.results.canvas import add_legend, color, new_axes, use_log_scale

    figure, axes = new_axes()
    for which in ("x", "y"):
        use_log_scale(axes, which)
    for index, (code, curve) in enumerate(curves.items()):
        sizes, speedups = [each.num_gpus for each in curve], [each.speedup for each in curve]
        axes.plot(sizes, speedups, "o-", color=color(index), label=f"{code}, predicted")
        axes.plot(*PUBLISHED[code], "*", color=color(index), markersize=14, label="published")
        for each in curve:
            axes.annotate(f"DAP {each.dap}", (each.num_gpus, each.speedup), fontsize=7, va="top")
    axes.set_xlabel("H100 that train")
    axes.set_ylabel("samples per second against the reference on 8 H100")
    add_legend(axes)
    save_picture(figure, path)
