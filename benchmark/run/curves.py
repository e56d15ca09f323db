"""Pictures of a run: the loss over steps and lDDT-Ca over samples, with the starts of phases."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark.replace_file import save_picture
from benchmark.run.phase_record import PhaseRecord
from openfold_opt.train.observer import EvaluationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVALUATION_CURVE = "evaluation_curve.png"
LOSS_CURVE = "loss_curve.png"
MAX_POINTS = 2000
"""Largest number of points of a line; a longer line has the means of groups of steps."""
WINDOWS_PER_RUN = 50
"""The running mean is over this fraction of the steps, at least MIN_WINDOW steps."""
MIN_WINDOW = 10
LOG_SCALE_RATIO = 10.0
"""The axis of the loss is logarithmic if its running mean falls by at least this factor."""


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """The total loss of each step, in the order of the steps."""

    steps: np.ndarray
    """int64, [N]"""
    samples_seen: np.ndarray
    """Training samples up to each step: int64, [N]"""
    losses: np.ndarray
    """float64, [N]; NaN where the loss was not finite."""


def read_losses(path: Path) -> LossCurve:
    """Return the losses in steps.jsonl; without the file, none.

    A resumed run repeats the steps after its checkpoint; the last line of a step counts. Damaged
    lines are skipped.
    """
    found: dict[int, tuple[int, float]] = {}
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    loss = math.nan if record["loss"] is None else float(record["loss"])
                    found[int(record["step"])] = (int(record["samples_seen"]), loss)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # The process died while it wrote this line.
    steps = sorted(found)
    return LossCurve(
        steps=np.array(steps, dtype=np.int64),
        samples_seen=np.array([found[step][0] for step in steps], dtype=np.int64),
        losses=np.array([found[step][1] for step in steps], dtype=np.float64),
    )


def draw_losses(curve: LossCurve, path: Path, *, phases: Sequence[PhaseRecord] = ()) -> None:
    """Draw the total loss over steps as a PNG: every step, and the running mean.

    curve: at least one step. phases: a vertical line marks the start of each phase after the first.
    """
    figure, axes = _new_figure()
    is_finite = np.isfinite(curve.losses)
    steps, losses = curve.steps[is_finite], curve.losses[is_finite]
    window = min(max(MIN_WINDOW, len(steps) // WINDOWS_PER_RUN), max(1, len(steps)))
    means = running_mean(losses, window)
    group = -(-len(steps) // MAX_POINTS) or 1
    axes.plot(
        thinned(steps, group),
        thinned(losses, group),
        color="tab:blue",
        alpha=0.35,
        linewidth=0.8,
        label="each step" if group == 1 else f"mean of {group} steps",
    )
    if len(means):
        axes.plot(
            thinned(steps[window - 1 :], group),
            thinned(means, group),
            color="tab:blue",
            label=f"running mean of {window} steps",
        )
    is_positive = bool(len(losses)) and losses.min() > 0
    if is_positive and means.max() > LOG_SCALE_RATIO * means.min():
        axes.set_yscale("log")
    axes.set(xlabel="optimizer steps", ylabel="total loss")
    # Half a step later, so that the line is between the last step and the first.
    _mark_phases(axes, {phase.name: phase.steps_before + 0.5 for phase in phases[1:]})
    _add_legend(figure)
    save_picture(figure, path)


def draw_evaluations(
    evaluations: Sequence[EvaluationReport],
    path: Path,
    *,
    target_lddt_ca: float,
    phases: Sequence[PhaseRecord] = (),
    curve: LossCurve | None = None,
) -> None:
    """Draw lDDT-Ca over samples as a PNG: the mean, the range over chains, and the target.

    phases: a vertical line marks the start of each phase after the first. curve: gives the number
    of samples at these steps; without it, the evaluations do.
    """
    figure, axes = _new_figure()
    samples = [evaluation.samples_at_end for evaluation in evaluations]
    scores = [[chain.lddt_ca for chain in evaluation.chains] for evaluation in evaluations]
    lowest = [min(values) for values in scores]
    highest = [max(values) for values in scores]
    axes.fill_between(samples, lowest, highest, alpha=0.2, label="range over chains")
    axes.plot(samples, [evaluation.lddt_ca for evaluation in evaluations], marker="o", label="mean")
    axes.axhline(target_lddt_ca, linestyle="--", color="black", label=f"target {target_lddt_ca}")
    axes.set(xlabel="samples", ylabel="lDDT-Ca of the averaged weights", ylim=(0, 1))
    starts = {
        phase.name: _samples_after(phase.steps_before, evaluations, curve) for phase in phases[1:]
    }
    _mark_phases(axes, {name: start for name, start in starts.items() if start is not None})
    _add_legend(figure)
    save_picture(figure, path)


def thinned(values: np.ndarray, group: int) -> np.ndarray:
    """Return the means of groups of consecutive values: [N] -> [ceil(N / group)] in float64.

    The last group may be smaller.
    """
    starts = np.arange(0, len(values), group)
    if len(values) == 0:
        return values.astype(np.float64)
    sizes = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(values.astype(np.float64), starts) / sizes


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each `window` consecutive values: [N] -> [N - window + 1]."""
    if len(values) == 0:
        return values
    sums = np.cumsum(np.insert(values, 0, 0.0))
    return (sums[window:] - sums[:-window]) / window


def _new_figure() -> tuple[Figure, Axes]:
    # matplotlib takes half a second to import, and most processes draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _add_legend(figure: Figure) -> None:
    """Add the legend above the axes, where it hides neither a line nor the name of a phase."""
    figure.legend(loc="outside upper center", ncols=3, frameon=False)


def _mark_phases(axes: Axes, starts: dict[str, float]) -> None:
    """Draw a vertical line with the name of the phase at each start."""
    for name, start in starts.items():
        axes.axvline(start, color="tab:red", linestyle=":", linewidth=1.2)
        axes.annotate(
            f"phase {name}",
            xy=(start, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize="small",
            color="tab:red",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _samples_after(
    step: int, evaluations: Sequence[EvaluationReport], curve: LossCurve | None
) -> float | None:
    """Return the number of samples that the run had used after a step; None if it is unknown."""
    if curve is not None:
        found = curve.samples_seen[curve.steps == step]
        if len(found):
            return float(found[0])
    return next((float(e.samples_at_end) for e in evaluations if e.step == step), None)
