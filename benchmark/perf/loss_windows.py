"""Two courses of training side by side: how much losses differ in windows of steps, measured by how much runs differ that should be alike.

A side is {"losses", "gradient_norms": one number for each step, "evaluations": [[step, lddt_ca], ...], ...}; sides go by name: "plain",
"fast", "nudged 1" and so on, "seed 2" and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PLAIN, FAST, NUDGED, SEED = "plain", "fast", "nudged", "seed"
FIRST_STEPS = 10
"""Steps that are also looked at one by one: later ones have drifted apart."""
TOLERANCE = 3.0
"""How many times the largest difference of a nudged run the fast side may differ. A nudged run is rounded once, the fast side in every step,
its activations too: plain kernels in bf16 came to 2.03 times on the demo."""

Sides = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Steps first..last, counted from 1. Differences are relative to the plain side's mean; None: there is no such side."""

    first: int
    last: int
    plain: float
    fast: float
    """Means over the window."""
    fast_differs: float
    """Mean over the steps of the absolute difference from the plain side."""
    perturbed_differ: float
    """That of the nudged run where it is largest."""
    seeds_differ: float | None
    """That of the run with another seed where it is largest; its samples are others too."""

    @property
    def shift(self) -> float:
        """Relative difference of the means: what is left when steps above and below the plain side's cancel."""
        return (self.fast - self.plain) / self.plain

    @property
    def times_perturbed(self) -> float:
        """By how much the fast side differs more than nudged runs do."""
        if self.perturbed_differ == 0.0:
            return 0.0 if self.fast_differs == 0.0 else float("inf")
        return self.fast_differs / self.perturbed_differ


def ranges(steps: int) -> list[tuple[int, int]]:
    """First and last step of each window: 1-10, 11-50, 51-100, 101-200, 201-500 and so on by 1, 2, 5, ten times those, to the last step."""
    ends = [FIRST_STEPS, 50, 100]
    while ends[-1] < steps:
        ends += [2 * ends[-1], 5 * ends[-1], 10 * ends[-1]]
    found, first = [], 1
    for end in ends:
        if first <= steps:
            found.append((first, min(end, steps)))
        first = end + 1
    return found


def compare(sides: Sides, figure: str) -> list[Window]:
    """figure: "losses" or "gradient_norms"."""
    series = {name: side[figure] for name, side in sides.items()}
    return [_window(series, first, last) for first, last in ranges(len(series[PLAIN]))]


def _window(series: dict[str, Sequence[float]], first: int, last: int) -> Window:
    cut = {name: values[first - 1 : last] for name, values in series.items()}
    plain = _mean(cut[PLAIN])
    differs = {
        name: _mean([abs(x - p) for x, p in zip(values, cut[PLAIN], strict=True)]) / plain
        for name, values in cut.items()
    }
    return Window(
        first=first,
        last=last,
        plain=plain,
        fast=_mean(cut[FAST]),
        fast_differs=differs[FAST],
        perturbed_differ=max(differs[name] for name in _of_kind(cut, NUDGED)),
        seeds_differ=max((differs[name] for name in _of_kind(cut, SEED)), default=None),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _of_kind(names: Any, kind: str) -> list[str]:
    return [name for name in names if name.startswith(f"{kind} ")]


def largest_of_first_steps(sides: Sides, figure: str) -> dict[str, float]:
    """side -> largest relative difference from the plain side in one of the first steps."""
    plain = sides[PLAIN][figure][:FIRST_STEPS]
    return {
        name: max(abs(x - p) / abs(p) for x, p in zip(side[figure], plain, strict=False))
        for name, side in sides.items()
        if name != PLAIN
    }


def strays(windows: Sequence[Window]) -> list[Window]:
    """Windows in which the fast side differs more than TOLERANCE times what nudged runs do."""
    return [window for window in windows if window.times_perturbed > TOLERANCE]


def verdict(sides: Sides) -> str:
    """Does the fast side follow the plain one? In a line."""
    windows = compare(sides, "losses")
    worst = max(windows, key=lambda window: window.times_perturbed)
    found = strays(windows)
    if not found:
        return (
            f"losses follow: at most {worst.times_perturbed:.2f} times the largest difference of a nudged run "
            f"(steps {worst.first}-{worst.last}), {TOLERANCE:g} are allowed"
        )
    where = ", ".join(
        f"{window.first}-{window.last} ({window.times_perturbed:.3g} times)" for window in found
    )
    return f"LOSSES DO NOT FOLLOW: more than {TOLERANCE:g} times the largest difference of a nudged run in steps {where}"


def first_step_at(side: dict[str, Any], target: float) -> int | None:
    """Step of the first evaluation that reaches a target lDDT-Ca; None if none does."""
    return next((step for step, lddt_ca in side["evaluations"] if lddt_ca >= target), None)
