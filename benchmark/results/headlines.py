"""The figure or two of a `perf` record that a reader looks for first; the record has every single time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmark.perf.loss_windows import verdict
from benchmark.perf.timing_stats import TimingStats

Values = dict[str, Any]


def headline(measurement: str, metrics: Values) -> str:
    """In one line. Of a measurement that this file does not know, or whose record is of another form, nothing is told."""
    try:
        return HEADLINES[measurement](metrics)
    except (KeyError, TypeError, IndexError, ZeroDivisionError, statistics.StatisticsError):
        return "see the record"


def _agreement(metrics: Values) -> str:
    errors = metrics["errors"]["gradient of all"]
    verdict = "the steps do not agree" if metrics["failures"] else "the steps agree"
    return (
        f"{metrics['preset']}: relative error of the gradients in bf16 "
        f"with fused kernels {errors['fused']:.1e}, with reference kernels {errors['low']:.1e}; "
        f"{verdict}"
    )


def _comm(metrics: Values) -> str:
    total = sum(row["times"] * statistics.median(row["seconds"]) for row in metrics["collectives"])
    volume = sum(row["times"] * row["sent_bytes"] for row in metrics["collectives"])
    return (
        f"{metrics['preset']}: collectives of a step on {metrics['num_ranks']} ranks, {metrics['backend']}: {total:.3f} s one after the other, "
        f"{volume / 1e9:.3f} GB sent by a rank"
    )


def _counts(metrics: Values) -> str:
    extra = metrics["extra_passes"]
    found = [
        f"{name} {(each['forward and backward']['bytes'] + extra * each['forward']['bytes']) / 1e9:,.0f} GB"
        for name, each in metrics["variants"].items()
    ]
    flops = [
        each["forward and backward"]["flops"] + extra * each["forward"]["flops"]
        for each in metrics["variants"].values()
    ]
    return f"{metrics['preset']}: a sample's step with {extra} extra passes moves {', '.join(found)}; {flops[0] / 1e12:.1f} TFLOP"


def _data(metrics: Values) -> str:
    parts = []
    if "conversion" in metrics:
        ours, reference = metrics["conversion"]["ours"], metrics["conversion"].get("reference")
        ratio = (
            f", MLCommons reference {reference['structures_seconds'] / ours['structures_seconds']:.1f}x as long"
            if reference
            else ""
        )
        parts.append(
            f"structures {ours['entries'] / ours['structures_seconds']:.1f} entries/s on one core{ratio}"
        )
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
        parts.append(f"a sample of {kind} {1e3 * ours:.1f} ms{ratio}")
    return "; ".join(parts)


def _evaluation(metrics: Values) -> str:
    ratio = statistics.median(metrics["during"]) / statistics.median(metrics["between"])
    return f"{metrics['preset']}: a step while other ranks ({metrics['num_evaluation_ranks']}) evaluate takes {ratio:.3f}x one between evaluations"


def _kernels(metrics: Values) -> str:
    ratios = [
        statistics.median(case["seconds"]["plain"]["both"])
        / statistics.median(case["seconds"]["ours"]["both"])
        for case in metrics["cases"]
        if {"ours", "plain"} <= case["seconds"].keys()
    ]
    spread = TimingStats.of(ratios)
    return (
        f"{metrics['preset']}, {metrics['precision']} on {metrics['device']}: plain operations take {spread.low:.2f}x to {spread.high:.2f}x "
        f"(median {spread.median:.2f}x) ours, forward and backward, {spread.count} cases"
    )


def _loader(metrics: Values) -> str:
    parts = []
    if "loaders" in metrics:
        waits = [f"{name} {found['stall_share']:.1%}" for name, found in metrics["loaders"].items()]
        parts.append(f"share of time that training waits: {', '.join(waits)}")
    if "staging" in metrics:
        found = {kind: times for kind, times in metrics["staging"]["seconds"].items() if times}
        waits = [f"{kind} {1e3 * statistics.median(times):.2f} ms" for kind, times in found.items()]
        parts.append(f"wait for a batch on {metrics['staging']['device']}: {', '.join(waits)}")
    return "; ".join(parts)


def _losses(metrics: Values) -> str:
    way = f"{metrics['kernels']} kernels in {metrics['precision']}{' with CUDA graphs' if metrics['graphs'] else ''}"
    return f"{metrics['preset']}, {metrics['steps']} steps, {way}: {verdict(metrics['sides'])}"


def _precision(metrics: Values) -> str:
    errors = [f"{name} {value:.1e}" for name, value in metrics["gradients"]["all"].items()]
    return f"{metrics['preset']}: relative error of all gradients against plain float32: {', '.join(errors)}"


def _resources(metrics: Values) -> str:
    found = [f"{name} {_kernel_summary(kernels)}" for name, kernels in metrics["kernels"].items()]
    return f"{metrics['preset']}: {', '.join(found)}"


def _kernel_summary(kernels: list[Values]) -> str:
    """Spills where kernels were compiled to the end, else the most shared memory of any."""
    spills = [kernel["spills"] for kernel in kernels if kernel["spills"] is not None]
    if spills:
        return f"{sum(number > 0 for number in spills)} of {len(spills)} kernels spill registers"
    return f"at most {max(kernel['shared_bytes'] for kernel in kernels):,} bytes of shared memory"


def _step(metrics: Values) -> str:
    parts = []
    for passes, sides in metrics["passes"].items():
        ours = TimingStats.of(sides["ours"]["seconds"])
        text = f"{passes} extra passes {ours.median:.3f} s/step"
        if "reference" in sides:
            text += f", MLCommons reference {TimingStats.of(sides['reference']['seconds']).ratio_to(ours).median:.2f}x as long"
        parts.append(text)
    return f"{metrics['preset']} {metrics['precision']}, kernels {metrics['kernels']}: {'; '.join(parts)}"


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
