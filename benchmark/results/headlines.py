"""One-line summaries of `perf` records."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmark.perf.tools.loss_windows import summarize
from benchmark.perf.tools.timing_stats import TimingStats

Values = dict[str, Any]


def headline(measurement: str, metrics: Values) -> str:
    """Return the summary of a record, or a placeholder if its format or measurement is unknown."""
    try:
        return HEADLINES[measurement](metrics)
    except (KeyError, TypeError, IndexError, ZeroDivisionError, statistics.StatisticsError):
        return "see the record"


def _agreement(metrics: Values) -> str:
    errors = metrics["errors"]["gradient of all"]
    result = "the steps do not agree" if metrics["failures"] else "the steps agree"
    return (
        f"{metrics['preset']}: relative error of the gradients in bf16 "
        f"with fused kernels {errors['fused']:.1e}, with reference kernels {errors['low']:.1e}; "
        f"{result}"
    )


def _comm(metrics: Values) -> str:
    total = sum(row["times"] * statistics.median(row["seconds"]) for row in metrics["collectives"])
    volume = sum(row["times"] * row["sent_bytes"] for row in metrics["collectives"])
    return (
        f"{metrics['preset']}: collectives of a step on {metrics['num_ranks']} ranks, "
        f"{metrics['backend']}: {total:.3f} s without overlap, {volume / 1e9:.3f} GB sent by each "
        "rank"
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


def _data(metrics: Values) -> str:
    parts = []
    if "conversion" in metrics:
        ours, reference = metrics["conversion"]["ours"], metrics["conversion"].get("reference")
        text = (
            f"structures {ours['entries'] / ours['structures_seconds']:.1f} entries/s on one core"
        )
        if reference:
            ratio = reference["structures_seconds"] / ours["structures_seconds"]
            text += f", MLCommons reference {ratio:.1f}x as long"
        parts.append(text)
    for kind, chains in metrics.get("samples", {}).items():
        ours = statistics.median(statistics.median(chain["ours"]) for chain in chains.values())
        ratios = [
            statistics.median(chain["reference"]) / statistics.median(chain["ours"])
            for chain in chains.values()
            if "reference" in chain
        ]
        ratio = (
            f", MLCommons reference {statistics.median(ratios):.0f}x as long (medians)"
            if ratios
            else ""
        )
        parts.append(f"{kind} sample {1e3 * ours:.1f} ms{ratio}")
    return "; ".join(parts)


def _evaluation(metrics: Values) -> str:
    ratio = statistics.median(metrics["during"]) / statistics.median(metrics["between"])
    return (
        f"{metrics['preset']}: a step while other ranks ({metrics['num_evaluation_ranks']}) "
        f"evaluate takes {ratio:.3f}x the time of a step between evaluations"
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


def _loader(metrics: Values) -> str:
    parts = []
    if "loaders" in metrics:
        waits = [f"{name} {found['stall_share']:.1%}" for name, found in metrics["loaders"].items()]
        parts.append(f"share of time that training waits: {', '.join(waits)}")
    if "staging" in metrics:
        seconds = metrics["staging"]["seconds"]
        waits = [
            f"{kind} {1e3 * statistics.median(times):.2f} ms"
            for kind, times in seconds.items()
            if times
        ]
        parts.append(f"wait for a batch on {metrics['staging']['device']}: {', '.join(waits)}")
    return "; ".join(parts)


def _losses(metrics: Values) -> str:
    setup = f"{metrics['kernels']} kernels in {metrics['precision']}"
    setup += " with CUDA graphs" if metrics["graphs"] else ""
    return f"{metrics['preset']}, {metrics['steps']} steps, {setup}: {summarize(metrics['sides'])}"


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
    "comm": _comm,
    "counts": _counts,
    "data": _data,
    "evaluation": _evaluation,
    "kernels": _kernels,
    "loader": _loader,
    "losses": _losses,
    "precision": _precision,
    "resources": _resources,
    "step": _step,
}
