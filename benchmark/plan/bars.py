"""Stacked bars of the parts of a step: actual against optimal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.plan.step_model import PARTS
from benchmark.plan.train_plan import TrainPlan
from benchmark.replace_file import save_picture


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar, from below to above."""

    label: str
    seconds: dict[str, float]
    """Part -> seconds."""


def step_bars(plan: TrainPlan) -> list[Bar]:
    """Return the bar of a step, and that of its compute at the peaks of the data sheet."""
    layout = plan.layout
    name = f"{plan.system}, {layout.num_gpus} GPUs, DAP {layout.dap}"
    if plan.phase != "training":
        name = f"{plan.phase}: {name}"
    return [
        Bar(label=f"{name}\nexpected", seconds=dict(plan.step.parts)),
        Bar(label=f"{name}\noptimal", seconds={"compute": plan.step.ideal}),
    ]


def draw_bars(bars: Sequence[Bar], path: Path) -> None:
    """Draw the bars to a PNG file."""
    from benchmark.results.canvas import add_legend, color, new_axes

    figure, axes = new_axes()
    names = list(dict.fromkeys([*PARTS, *(name for bar in bars for name in bar.seconds)]))
    positions = range(len(bars))
    bottoms = [0.0] * len(bars)
    for index, name in enumerate(names):
        heights = [bar.seconds.get(name, 0.0) for bar in bars]
        if any(heights):
            axes.bar(positions, heights, bottom=bottoms, color=color(index), label=name, width=0.6)
            bottoms = [low + height for low, height in zip(bottoms, heights)]
    for position, height in zip(positions, bottoms):
        axes.annotate(f"{height:.3g} s", (position, height), ha="center", va="bottom")
    axes.set_xticks(list(positions), [bar.label for bar in bars], fontsize=8)
    axes.set_ylabel("seconds of an optimizer step")
    axes.set_ylim(0, 1.1 * max(bottoms))
    add_legend(axes)
    save_picture(figure, path)
