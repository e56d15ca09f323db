"""One-line summaries of `perf` records."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmark.perf.tools.loss_windows import summarize

Values = dict[str, Any]


def _comm(metrics: Values) -> str:
    total = sum(row["times"] * statistics.median(row["seconds"]) for row in metrics["collectives"])
    volume = sum(row["times"] * row["sent_bytes"] for row in metrics["collectives"])
    return (
        f"{metrics['preset']}: collectives of a step on {metrics['num_ranks']} ranks, "
        f"{metrics['backend']}: {total:.3f} s without overlap, {volume / 1e9:.3f} GB sent by each "
        "rank"
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


HEADLINES: dict[str, Callable[[Values], str]] = {
    "comm": _comm,
    "data": _data,
    "evaluation": _evaluation,
    "loader": _loader,
    "losses": _losses,
}
