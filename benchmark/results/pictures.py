"""Plots of sets of runs: lDDT-Ca curves, step time, strong scaling."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from benchmark.replace_file import save_picture
from benchmark.results.canvas import add_legend, color, legend_name, new_axes, use_log_scale
from benchmark.results.gather import ResultSet
from benchmark.results.logged_run import Evaluation, LoggedRun
from benchmark.results.metrics import Metrics, step_seconds
from benchmark.results.reference_points import reference_points
from benchmark.results.scaling_picture import draw_strong_scaling
from benchmark.results.tables import label

Curve = tuple[list[float], list[float]]
"""x and y of one run."""
LOG_SCALE_FROM = 5.0
"""An axis is logarithmic if its values span more than this factor."""
LOWEST_SHARE = 0.03
"""Share of the lowest evaluations that may lie outside the axes: some runs have outliers."""


def draw_all(folder: Path, sets: Sequence[ResultSet], metrics: Sequence[Metrics]) -> None:
    """Draw lddt_samples.png, lddt_minutes.png, step_time.png and strong_scaling.png."""
    for name, draw in (
        ("lddt_samples", draw_lddt_samples),
        ("lddt_minutes", draw_lddt_minutes),
        ("step_time", draw_step_time),
    ):
        figure, axes = new_axes()
        draw(axes, sets, metrics)
        save_picture(figure, folder / f"{name}.png")
    figure, axes = new_axes()
    draw_strong_scaling(axes, metrics, colors=[color(i) for i in range(len(metrics))])
    save_picture(figure, folder / "strong_scaling.png")


def draw_lddt_samples(axes: Axes, sets: Sequence[ResultSet], metrics: Sequence[Metrics]) -> None:
    """Plot lDDT-Ca over samples, and the range in which the MLCommons reference's runs converge."""
    _draw_runs(
        axes, sets, metrics, curve=lambda run: _lddt_curve(run, lambda each: each.samples / 1e3)
    )
    if any(each.reference_samples for each in metrics):
        for point, shade in zip(reference_points(), ("0.55", "0.75"), strict=False):
            low, high = min(point.samples) / 1e3, max(point.samples) / 1e3
            axes.axvspan(
                low,
                high,
                color=shade,
                alpha=0.25,
                linewidth=0,
                label=f"MLCommons reference converges, batch {point.batch}",
            )
    _finish_lddt(axes, sets)
    axes.set_xlabel("thousand samples")


def draw_lddt_minutes(axes: Axes, sets: Sequence[ResultSet], metrics: Sequence[Metrics]) -> None:
    """Plot lDDT-Ca over minutes since run_start.

    A bar at the target shows, for each set, when it would have processed the samples that the
    MLCommons reference needs.
    """
    _draw_runs(axes, sets, metrics, curve=lambda run: _lddt_curve(run, lambda each: each.stop / 60))
    low_limit, high_limit = _lddt_limits(sets)
    has_speed = [any(run.is_converged and run.samples for run in each.runs) for each in sets]
    bars = [
        i for i, each in enumerate(metrics) if each.reference_samples is not None and has_speed[i]
    ]
    for row, i in enumerate(bars):
        low, high = _reference_minutes(sets[i])
        # The bars are stacked above the target.
        height = sets[i].runs[0].target + (row + 1) * 0.012 * (high_limit - low_limit)
        axes.plot(
            [low, high],
            [height, height],
            color=color(i),
            linewidth=4,
            solid_capstyle="butt",
            alpha=0.7,
        )
    if bars:
        axes.plot(
            [],
            [],
            color="0.4",
            linewidth=4,
            label="MLCommons reference's samples, at the set's speed",
        )
    _finish_lddt(axes, sets)
    _log_scale_if_wide(axes, "x", [run.minutes for each in sets for run in each.runs])
    axes.set_xlabel("minutes since run_start")


def draw_step_time(axes: Axes, sets: Sequence[ResultSet], metrics: Sequence[Metrics]) -> None:
    """Plot seconds per step over samples, one point per training interval."""

    def curve(run: LoggedRun) -> Curve:
        return [interval.samples / 1e3 for interval in run.intervals], step_seconds(run)

    _draw_runs(axes, sets, metrics, curve=curve)
    _log_scale_if_wide(
        axes, "y", [seconds for each in sets for run in each.runs for seconds in step_seconds(run)]
    )
    axes.set_xlabel("thousand samples")
    axes.set_ylabel("s/step, evaluation excluded")
    add_legend(axes)


def _draw_runs(
    axes: Axes,
    sets: Sequence[ResultSet],
    metrics: Sequence[Metrics],
    *,
    curve: Callable[[LoggedRun], Curve],
) -> None:
    """Draw every run as a thin line, and the median of each set as a thick one."""
    for i, (each, of_set) in enumerate(zip(sets, metrics, strict=True)):
        curves = [curve(run) for run in each.runs if run.evaluations and run.intervals]
        for x, y in curves if len(curves) > 1 else ():
            axes.plot(x, y, color=color(i), linewidth=0.7, alpha=0.35)
        if curves:
            num_runs = "1 run" if len(curves) == 1 else f"{len(curves)} runs"
            name = legend_name(f"{label(of_set)}, {num_runs}")
            axes.plot(*_median_curve(curves), color=color(i), linewidth=2, label=name)


def _median_curve(curves: Sequence[Curve]) -> Curve:
    """Return the median of the runs, up to the point where half of them have ended.

    A run that has ended keeps its last value. Runs are interpolated linearly.
    """
    first = max(x[0] for x, _ in curves)
    last = statistics.median_high(x[-1] for x, _ in curves)
    grid = sorted({value for x, _ in curves for value in x if first <= value <= last})
    return grid, list(np.median([np.interp(grid, x, y) for x, y in curves], axis=0))


def _lddt_curve(run: LoggedRun, x_of: Callable[[Evaluation], float]) -> Curve:
    evaluations = sorted(run.evaluations, key=lambda each: each.samples)
    return [x_of(each) for each in evaluations], [each.lddt_ca for each in evaluations]


def _reference_minutes(each: ResultSet) -> tuple[float, float]:
    """Return when the fastest and the slowest run of the MLCommons reference would have ended.

    Uses the speed of the set. The samples are interpolated to the batch size of the set.
    """
    points = reference_points()
    minutes_per_sample = statistics.median(
        run.minutes / run.samples for run in each.runs if run.is_converged and run.samples
    )
    batches = [point.batch for point in points]
    batch = each.runs[0].batch
    low, high = (
        float(np.interp(batch, batches, [choose(point.samples) for point in points]))
        for choose in (min, max)
    )
    return low * minutes_per_sample, high * minutes_per_sample


def _lddt_limits(sets: Sequence[ResultSet]) -> tuple[float, float]:
    """Return axis limits that include the target and nearly all scores of trained weights."""
    values = _trained_values(sets)
    values += [run.target for result in sets for run in result.runs]
    low, high = float(np.quantile(values, LOWEST_SHARE)), max(values)
    margin = 0.1 * (high - low) + 1e-3
    return max(low - margin, min(values) - margin / 3), high + margin


def _trained_values(sets: Sequence[ResultSet]) -> list[float]:
    """Return lDDT-Ca of all evaluations, except those of the initial weights."""
    return [
        each.lddt_ca
        for result in sets
        for run in result.runs
        for each in run.evaluations
        if each.samples > 0
    ]


def _finish_lddt(axes: Axes, sets: Sequence[ResultSet]) -> None:
    for target in sorted({run.target for each in sets for run in each.runs}):
        axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target}")
    limits = _lddt_limits(sets)
    num_hidden = sum(value < limits[0] for value in _trained_values(sets))
    if num_hidden:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(
            0.01,
            0.02,
            f"{num_hidden} evaluations are below",
            transform=axes.transAxes,
            fontsize=8,
            bbox=box,
        )
    axes.set_ylim(*limits)
    axes.set_ylabel("lDDT-Ca")
    add_legend(axes)


def _log_scale_if_wide(axes: Axes, which: str, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) > LOG_SCALE_FROM * min(positive):
        use_log_scale(axes, which)
