"""One-line summaries of `perf` records."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.timing_stats import TimingStats

Values = dict[str, Any]


def headline(measurement: str, metrics: Values) -> str:
    """Return the summary of a record, or a placeholder if its format or measurement is unknown."""
    try:
        return HEADLINES[measurement](metrics)
    except (KeyError, TypeError, IndexError, ValueError, ZeroDivisionError):
        return "see the record"


def _from_module(measurement: str, metrics: Values) -> str:
    module = importlib.import_module(f"benchmark.perf.{measurement}")
    return module.headline(from_json(module.METRICS, metrics))


def _agreement(metrics: Values) -> str:
    errors = metrics["errors"]["gradient of all"]
    result = "the steps do not agree" if metrics["failures"] else "the steps agree"
    return (
        f"{metrics['preset']}: relative error of the gradients in bf16 "
        f"with fused kernels {errors['fused']:.1e}, with reference kernels {errors['low']:.1e}; "
        f"{result}"
    )


def _counts(metrics: Values) -> str:
    extra = metrics["extra_passes"]
    totals = {
        name: {
            key: each["forward and backward"][key] + extra * each["forward"][key]
            for key in ("bytes", "flops")
        }
        for name, each in metrics["variants"].items()
    }
    volumes = [f"{name} {total['bytes'] / 1e9:,.0f} GB" for name, total in totals.items()]
    flops = next(iter(totals.values()))["flops"]
    return (
        f"{metrics['preset']}: one sample's step with {extra} recycling iterations moves "
        f"{', '.join(volumes)}; {flops / 1e12:.1f} TFLOP"
    )


def _kernels(metrics: Values) -> str:
    ratios = [
        statistics.median(case["seconds"]["plain"]["both"])
        / statistics.median(case["seconds"]["ours"]["both"])
        for case in metrics["cases"]
        if {"ours", "plain"} <= case["seconds"].keys()
    ]
    stats = TimingStats.of(ratios)
    return (
        f"{metrics['preset']}, {metrics['precision']} on {metrics['device']}: reference kernels "
        f"take {stats.low:.2f}x to {stats.high:.2f}x (median {stats.median:.2f}x) the time of "
        f"ours, forward and backward, {stats.count} cases"
    )


def _precision(metrics: Values) -> str:
    errors = [f"{name} {value:.1e}" for name, value in metrics["gradients"]["all"].items()]
    return (
        f"{metrics['preset']}: relative error of all gradients against float32: {', '.join(errors)}"
    )


def _resources(metrics: Values) -> str:
    parts = [f"{name} {_kernel_summary(kernels)}" for name, kernels in metrics["kernels"].items()]
    return f"{metrics['preset']}: {', '.join(parts)}"


def _kernel_summary(kernels: list[Values]) -> str:
    """Summarize spills if the kernels were compiled completely, else the largest shared memory."""
    spills = [kernel["spills"] for kernel in kernels if kernel["spills"] is not None]
    if spills:
        return f"{sum(number > 0 for number in spills)} of {len(spills)} kernels spill registers"
    return f"at most {max(kernel['shared_bytes'] for kernel in kernels):,} bytes of shared memory"


def _step(metrics: Values) -> str:
    parts = []
    for passes, sides in metrics["passes"].items():
        ours = TimingStats.of(sides["ours"]["seconds"])
        text = f"{passes} recycling iterations {ours.median:.3f} s/step"
        if "reference" in sides:
            ratio = TimingStats.of(sides["reference"]["seconds"]).ratio_to(ours)
            text += f", MLCommons reference {ratio.median:.2f}x as long"
        parts.append(text)
    setup = f"{metrics['preset']} {metrics['precision']}, kernels {metrics['kernels']}"
    return f"{setup}: {'; '.join(parts)}"


HEADLINES: dict[str, Callable[[Values], str]] = {
    "agreement": _agreement,
    "comm": partial(_from_module, "comm"),
    "counts": _counts,
    "data": partial(_from_module, "data"),
    "evaluation": partial(_from_module, "evaluation"),
    "kernels": _kernels,
    "loader": partial(_from_module, "loader"),
    "losses": partial(_from_module, "losses"),
    "precision": _precision,
    "resources": _resources,
    "step": _step,
}
