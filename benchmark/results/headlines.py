"""The figure or two of a `perf` record that a reader looks for first; the record has every single time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmark.perf.loss_windows import verdict
from benchmark.perf.spread import Spread

Values = dict[str, Any]


def headline(measurement: str, figures: Values) -> str:
    """In one line. Of a measurement that this file does not know, or whose record is of another form, nothing is told."""
    try:
        return HEADLINES[measurement](figures)
    except (KeyError, TypeError, IndexError, ZeroDivisionError, statistics.StatisticsError):
        return "see the record"


def _agreement(figures: Values) -> str:
    errors = figures["errors"]["gradient of all"]
    verdict = "the steps do not agree" if figures["failures"] else "the steps agree"
    return (
        f"{figures['preset']}: relative error of the gradients in bf16 "
        f"with fused kernels {errors['fused']:.1e}, with reference kernels {errors['low']:.1e}; "
        f"{verdict}"
    )


def _comm(figures: Values) -> str:
    total = sum(row["times"] * statistics.median(row["seconds"]) for row in figures["collectives"])
    volume = sum(row["times"] * row["sent_bytes"] for row in figures["collectives"])
    return (
        f"{figures['preset']}: collectives of a step on {figures['num_ranks']} ranks, {figures['backend']}: {total:.3f} s one after the other, "
        f"{volume / 1e9:.3f} GB sent by a rank"
    )


def _counts(figures: Values) -> str:
    extra = figures["extra_passes"]
    found = [
        f"{name} {(each['forward and backward']['bytes'] + extra * each['forward']['bytes']) / 1e9:,.0f} GB"
        for name, each in figures["variants"].items()
    ]
    flops = [each["forward and backward"]["flops"] + extra * each["forward"]["flops"] for each in figures["variants"].values()]
    return f"{figures['preset']}: a sample's step with {extra} extra passes moves {', '.join(found)}; {flops[0] / 1e12:.1f} TFLOP"


def _data(figures: Values) -> str:
    parts = []
    if "conversion" in figures:
        ours, reference = figures["conversion"]["ours"], figures["conversion"].get("reference")
        ratio = f", MLCommons reference {reference['structures_seconds'] / ours['structures_seconds']:.1f}x as long" if reference else ""
        parts.append(f"structures {ours['entries'] / ours['structures_seconds']:.1f} entries/s on one core{ratio}")
    for kind, chains in figures.get("samples", {}).items():
        ours = statistics.median(statistics.median(chain["ours"]) for chain in chains.values())
        ratios = [statistics.median(chain["reference"]) / statistics.median(chain["ours"]) for chain in chains.values() if "reference" in chain]
        ratio = f", MLCommons reference {statistics.median(ratios):.0f}x as long (medians)" if ratios else ""
        parts.append(f"a sample of {kind} {1e3 * ours:.1f} ms{ratio}")
    return "; ".join(parts)


def _evaluation(figures: Values) -> str:
    ratio = statistics.median(figures["during"]) / statistics.median(figures["between"])
    return f"{figures['preset']}: a step while other ranks ({figures['num_evaluation_ranks']}) evaluate takes {ratio:.3f}x one between evaluations"


def _kernels(figures: Values) -> str:
    ratios = [
        statistics.median(case["seconds"]["plain"]["both"]) / statistics.median(case["seconds"]["ours"]["both"])
        for case in figures["cases"]
        if {"ours", "plain"} <= case["seconds"].keys()
    ]
    spread = Spread.of(ratios)
    return (
        f"{figures['preset']}, {figures['precision']} on {figures['device']}: plain operations take {spread.low:.2f}x to {spread.high:.2f}x "
        f"(median {spread.median:.2f}x) ours, forward and backward, {spread.count} cases"
    )


def _loader(figures: Values) -> str:
    parts = []
    if "loaders" in figures:
        waits = [f"{name} {found['stall_share']:.1%}" for name, found in figures["loaders"].items()]
        parts.append(f"share of time that training waits: {', '.join(waits)}")
    if "staging" in figures:
        found = {kind: times for kind, times in figures["staging"]["seconds"].items() if times}
        waits = [f"{kind} {1e3 * statistics.median(times):.2f} ms" for kind, times in found.items()]
        parts.append(f"wait for a batch on {figures['staging']['device']}: {', '.join(waits)}")
    return "; ".join(parts)


def _losses(figures: Values) -> str:
    way = f"{figures['kernels']} kernels in {figures['precision']}{' with CUDA graphs' if figures['graphs'] else ''}"
    return f"{figures['preset']}, {figures['steps']} steps, {way}: {verdict(figures['sides'])}"


def _precision(figures: Values) -> str:
    errors = [f"{name} {value:.1e}" for name, value in figures["gradients"]["all"].items()]
    return f"{figures['preset']}: relative error of all gradients against plain float32: {', '.join(errors)}"


def _resources(figures: Values) -> str:
    found = [f"{name} {_kernel_summary(kernels)}" for name, kernels in figures["kernels"].items()]
    return f"{figures['preset']}: {', '.join(found)}"


def _kernel_summary(kernels: list[Values]) -> str:
    """Spills where kernels were compiled to the end, else the most shared memory of any."""
    spills = [kernel["spills"] for kernel in kernels if kernel["spills"] is not None]
    if spills:
        return f"{sum(number > 0 for number in spills)} of {len(spills)} kernels spill registers"
    return f"at most {max(kernel['shared_bytes'] for kernel in kernels):,} bytes of shared memory"


def _step(figures: Values) -> str:
    parts = []
    for passes, sides in figures["passes"].items():
        ours = Spread.of(sides["ours"]["seconds"])
        text = f"{passes} extra passes {ours.median:.3f} s/step"
        if "reference" in sides:
            text += f", MLCommons reference {Spread.of(sides['reference']['seconds']).ratio_to(ours).median:.2f}x as long"
        parts.append(text)
    return f"{figures['preset']} {figures['precision']}, kernels {figures['kernels']}: {'; '.join(parts)}"


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
