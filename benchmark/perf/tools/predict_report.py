"""Metrics of `perf predict`, and their report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from benchmark.perf.subprocesses.forward_measurement import ForwardRun
from benchmark.perf.tools.predict_case import CaseSizes
from benchmark.perf.tools.predict_sides import OPENFOLD_NAMES, OURS
from benchmark.perf.tools.timing_stats import TimingStats, table
from openfold_opt.model.config import ModelConfig

_MEBIBYTE = 2**20
_WIDTHS = ModelConfig()
_HEADER = (
    "residues",
    "s",
    "CPU s",
    "counted, MiB",
    "U",
    "plan / counted",
    "RSS, MiB",
    "plan / RSS",
    "difference",
    "load",
)
_NOTES = """\
s: median (lowest to highest) of {rounds} rounds in alternating processes; CPU s: median CPU time, \
which other processes change less
counted: peak of live tensors created in the forward pass; U: the same in pair tensors of this \
length; plan: bytes that the memory plan of ours expected, for RSS with those of the heap
RSS: peak resident set above the base right before the forward pass, highest of all rounds
difference: from our results, the largest of positions, pLDDT, pair and distogram, norm-wise; \
load: highest load average"""


@dataclass(frozen=True, kw_only=True)
class SideResults:
    """Runs of one program at one length."""

    runs: list[ForwardRun] = field(default_factory=list)
    """The timed runs, one for each round."""
    counted: ForwardRun | None = None
    """The run that counted tensors; its times are not comparable."""
    differences: dict[str, float] = field(default_factory=dict)
    """Result -> |result - ours| / |ours|; empty for ours."""
    not_run: str | None = None
    """Why there is no run, or not one in each round."""

    def stats(self) -> TimingStats | None:
        """Return the seconds of all rounds; None if no run ended."""
        return TimingStats.of([run.seconds for run in self.runs]) if self.runs else None

    def cpu_stats(self) -> TimingStats | None:
        """Return the CPU seconds of all rounds; None if no run ended."""
        return TimingStats.of([run.cpu_seconds for run in self.runs]) if self.runs else None

    @property
    def resident_bytes(self) -> int:
        """Highest peak of the resident set above the base."""
        return max(run.peak_bytes - run.base_bytes for run in self.runs)

    @property
    def counted_bytes(self) -> int | None:
        """Peak of the bytes of live tensors; None if they were not counted."""
        if self.counted is not None:
            return self.counted.counted_bytes
        counts = [run.counted_bytes for run in self.runs if run.counted_bytes is not None]
        return max(counts, default=None)


@dataclass(frozen=True, kw_only=True)
class PredictMetrics:
    """Forward passes of all programs at all lengths."""

    sizes: CaseSizes
    kernels: str
    ran: str
    """The implementation that `kernels` resolves to, from what_runs."""
    device: str
    precision: str
    threads: int
    rounds: int
    lengths: dict[str, dict[str, SideResults]] = field(default_factory=dict)
    """Number of residues, as text -> program and setting -> results."""
    failures: list[str] = field(default_factory=list)
    """A line for each program that failed, and for each whose results differ from ours."""


def format_report(metrics: PredictMetrics) -> str:
    """Format a table for each length, and what did not run."""
    sizes = metrics.sizes
    parts = [
        f"one pass at full widths: {sizes.blocks} Evoformer blocks, {sizes.extra_blocks} extra-MSA "
        f"blocks, {sizes.templates} templates, {sizes.clusters} clusters, {sizes.extra_msa} extra "
        f"rows; {metrics.precision} on {metrics.device}, {metrics.threads} CPU threads; ours: "
        f"{metrics.kernels} kernels ({metrics.ran})"
    ]
    for length, sides in metrics.lengths.items():
        pair_bytes = int(length) ** 2 * _WIDTHS.c_z * _element_bytes(metrics.precision)
        rows = [_row(length, name, side, pair_bytes) for name, side in sides.items()]
        ratio = _ratio_row(metrics, length)
        lines = [
            table(rows + ([ratio] if ratio else []), header=_HEADER),
            _sizes_line(int(length), sizes, _element_bytes(metrics.precision)),
        ]
        reasons = [f"{name}: {side.not_run}" for name, side in sides.items() if side.not_run]
        tuning = [line for name, side in sides.items() if (line := _tuning_line(name, side))]
        parts.append("\n".join(lines + reasons + tuning))
    parts.append(_NOTES.format(rounds=metrics.rounds))
    return "\n\n".join(parts)


def _element_bytes(precision: str) -> int:
    return {"fp32": 4, "bf16": 2}[precision]


def _sizes_line(length: int, sizes: CaseSizes, element_bytes: int) -> str:
    """Return a line with the bytes of the representations, which a program holds at least."""
    rows = {
        "pairs (U)": length * _WIDTHS.c_z,
        "MSA": (sizes.clusters + sizes.templates) * _WIDTHS.c_m,
        "extra MSA": sizes.extra_msa * _WIDTHS.c_e,
    }
    parts = [
        f"{name} {length * elements * element_bytes / _MEBIBYTE:.1f} MiB"
        for name, elements in rows.items()
    ]
    return f"{length} residues, one tensor: {', '.join(parts)}"


def _row(length: str, name: str, side: SideResults, pair_bytes: int) -> list[str]:
    stats, cpu_stats = side.stats(), side.cpu_stats()
    if stats is None or cpu_stats is None:
        return [f"{length} {name}", "not run", *([""] * (len(_HEADER) - 2))]
    counted = side.counted_bytes
    return [
        f"{length} {name}",
        stats.text(2),
        f"{cpu_stats.median:.2f}",
        "" if counted is None else f"{counted / _MEBIBYTE:.0f}",
        "" if counted is None else f"{counted / pair_bytes:.2f}",
        _ratio(side.runs[0].planned_bytes, counted),
        f"{side.resident_bytes / _MEBIBYTE:.0f}",
        _ratio(side.runs[0].planned_resident_bytes, side.resident_bytes),
        f"{max(side.differences.values()):.1e}" if side.differences else "",
        f"{max(run.load for run in side.runs):.1f}",
    ]


def fastest_peer(metrics: PredictMetrics, length: str) -> str | None:
    """Return the OpenFold setting with the lowest median time, None if none of them ran.

    With one thread on a CPU this is the CPU time, which equals the time on an idle machine.
    """
    by_cpu_time = metrics.device == "cpu" and metrics.threads == 1
    times = {
        name: stats.median
        for name, side in metrics.lengths[length].items()
        if name in OPENFOLD_NAMES.values()
        and (stats := side.cpu_stats() if by_cpu_time else side.stats()) is not None
    }
    return min(times, key=lambda name: times[name], default=None)


def _ratio_row(metrics: PredictMetrics, length: str) -> list[str] | None:
    """Return the ratios of ours to the fastest setting of OpenFold."""
    sides = metrics.lengths[length]
    peer, ours = fastest_peer(metrics, length), sides[OURS]
    if peer is None or not ours.runs:
        return None
    other = sides[peer]
    ratios = [
        mine.ratio_to(their).text(2)
        for mine, their in ((ours.stats(), other.stats()), (ours.cpu_stats(), other.cpu_stats()))
        if mine is not None and their is not None
    ]
    counted = _ratio(ours.counted_bytes, other.counted_bytes)
    resident = _ratio(ours.resident_bytes, other.resident_bytes)
    return [f"{length} {OURS} / {peer}", *ratios, counted, "", "", resident, "", "", ""]


def _ratio(ours: int | None, theirs: int | None) -> str:
    """Format a ratio of bytes; empty if they were not counted, or a short chain needed none."""
    return "" if ours is None or not theirs else f"{ours / theirs:.2f}"


def _tuning_line(name: str, side: SideResults) -> str | None:
    """Return a line about untimed forward passes that took longer, because they tuned chunks."""
    seconds = [run.first_seconds for run in side.runs if run.first_seconds is not None]
    if not seconds:
        return None
    return f"{name}: the first, untimed forward pass took {TimingStats.of(seconds).text(2)} s"


def format_headline(metrics: PredictMetrics) -> str:
    """Summarize time and memory of ours by length, and the ratios to OpenFold's fastest setting."""
    parts = []
    for length, sides in metrics.lengths.items():
        ours = sides[OURS]
        stats = ours.stats()
        if stats is None:
            continue
        text = f"{length} residues {stats.median:.2f} s"
        peer = fastest_peer(metrics, length)
        other = None if peer is None else sides[peer].stats()
        if other is not None and peer is not None:
            resident = _ratio(ours.resident_bytes, sides[peer].resident_bytes)
            text += f", {stats.ratio_to(other).median:.2f} of {peer}"
            text += f" with {resident} of its memory" if resident else ""
        parts.append(text)
    return f"{metrics.precision} on {metrics.device}: {'; '.join(parts)}"


def with_run(side: SideResults, run: ForwardRun, *, counts: bool) -> SideResults:
    """Return the results with one more run, timed or counted."""
    if counts:
        return dataclasses.replace(side, counted=run)
    return dataclasses.replace(side, runs=[*side.runs, run])
