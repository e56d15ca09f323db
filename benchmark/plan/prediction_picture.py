"""Picture of published times of predictions, and of what is predicted for the same lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.plan.prediction_validation import TableCheck
from benchmark.replace_file import save_picture
from benchmark.results.canvas import add_legend, color, legend_name, new_axes, use_log_scale


def draw_published(checks: Sequence[TableCheck], path: Path) -> None:
    """Draw measured times as points and predicted ones as lines, one color for each table.

    The prediction of a fitted length is that without this length. Those of longer ones are dashed:
    where points leave the line, the model does not hold.
    """
    figure, axes = new_axes()
    for which in ("x", "y"):
        use_log_scale(axes, which)
    for i, check in enumerate(checks):
        published, predicted = check.published, check.predicted()
        name = legend_name(f"{published.name}, {published.gpu}")
        lengths = list(published.seconds)
        axes.plot(
            lengths, list(published.seconds.values()), "o", color=color(i), markersize=5, label=name
        )
        fitted = list(published.fitted())
        axes.plot(fitted, [predicted[n] for n in fitted], "-", color=color(i))
        longer = [n for n in lengths if n >= fitted[-1]]
        axes.plot(longer, [predicted[n] for n in longer], "--", color=color(i))
    axes.set_xlabel("residues or tokens")
    axes.set_ylabel("seconds of a prediction")
    axes.set_title("Published times (points) and predictions without each length (lines)")
    add_legend(axes)
    save_picture(figure, path)
