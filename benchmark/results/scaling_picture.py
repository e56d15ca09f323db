"""Plot of strong scaling: time to train over accelerators, for several systems."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from benchmark.results.canvas import add_legend, legend_name, use_log_scale
from benchmark.results.metrics import Metrics
from benchmark.results.reference_points import SHORT
from benchmark.results.tables import label


def draw_strong_scaling(axes: Axes, metrics: Sequence[Metrics], *, colors: Sequence) -> None:
    """Draw one point per set, with the range of its runs.

    The point is the trimmed mean, or the fastest of fewer than three runs. Gray lines show ideal
    scaling.
    """
    drawn = [(each, colors[i]) for i, each in enumerate(metrics) if _minutes(each) is not None]
    for which in ("x", "y"):
        use_log_scale(axes, which)
    for each, color in drawn:
        size, minutes = _size(each), _minutes(each)
        low, high = each.minutes_min, each.minutes_max or minutes
        name = f"{label(each)}" + (
            f", one of {each.runs} concurrent runs" if each.is_throughput else ""
        )
        is_short = each.verdict == SHORT
        name += ", fails RCP: not a result" if is_short else ""
        axes.errorbar(
            [size],
            [minutes],
            yerr=[[minutes - low], [high - minutes]],
            color=color,
            marker="X" if is_short else "o",
            markersize=8,
            markerfacecolor="none" if each.is_throughput else color,
            capsize=4,
            linestyle="none",
            label=legend_name(name),
        )
        if each.minutes_normalized is not None and each.rcp_factor > 1:
            axes.plot(
                [size],
                [each.minutes_normalized],
                color=color,
                marker="_",
                markersize=16,
                markeredgewidth=2,
            )
    if any(each.rcp_factor > 1 for each, _ in drawn):
        axes.plot(
            [],
            [],
            color="0.4",
            marker="_",
            markersize=12,
            markeredgewidth=2,
            linestyle="none",
            label="RCP-normalized",
        )
    _draw_ideal(axes, [each for each, _ in drawn])
    axes.set_xlabel("accelerators (ranks if there are none)")
    axes.set_ylabel("time to train, minutes")
    if drawn:
        add_legend(axes)


def _draw_ideal(axes: Axes, metrics: Sequence[Metrics]) -> None:
    """Draw a line of constant accelerator-minutes through each point; points below are better."""
    if not metrics:
        return
    sizes = [_size(each) for each in metrics]
    times = [_minutes(each) for each in metrics]
    left, right = min(sizes) / 1.5, max(sizes) * 1.5
    for i, (size, minutes) in enumerate(zip(sizes, times, strict=True)):
        name = "ideal scaling from each" if i == 0 else None
        axes.plot(
            [left, right],
            [size * minutes / left, size * minutes / right],
            color="0.7",
            linewidth=0.8,
            linestyle=":",
            label=name,
        )
    axes.set_xlim(left, right)
    axes.set_ylim(min(times) / 2, max(times) * 2)


def _size(each: Metrics) -> int:
    """Return the accelerators of one run, or its ranks if it used only CPUs."""
    return each.accelerators_per_run or each.ranks


def _minutes(each: Metrics) -> float | None:
    """Return the height of the point of a set; None if no run converged."""
    return each.minutes_trimmed_mean if each.minutes_trimmed_mean is not None else each.minutes_min
