"""Sets of runs as Markdown, for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from benchmark.results.gather import Rejection
from benchmark.results.metrics import Metrics
from benchmark.results.reference_points import NORMALISED

UNKNOWN = "-"
NUMBER = re.compile(r"-$|~?\d[\d,.]*(%|\b)")
Column = tuple[str, Callable[[Metrics], str]]


def markdown(metrics: Sequence[Metrics], rejections: Sequence[Rejection]) -> str:
    """Three tables (time, convergence, speed), what needs explaining, and what was left out."""
    parts = []
    if metrics:
        parts += [f"### {title}\n\n{table(metrics, columns)}" for title, columns in TABLES]
        parts += ["\n".join(f"- {note}" for note in notes(metrics))]
    if rejections:
        lines = [f"- {rejection.path}: {rejection.reason}" for rejection in rejections]
        parts += ["### Left out\n\n" + "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(metrics: Sequence[Metrics], columns: Sequence[Column]) -> str:
    """One row per set."""
    return markdown_table(
        [[cell(each) for _, cell in columns] for each in metrics],
        header=[name for name, _ in columns],
    )


def markdown_table(rows: Sequence[Sequence[str]], *, header: Sequence[str]) -> str:
    """Aligned, so that it is readable as plain text too: numbers to the right, all else to the left."""
    texts = [
        [" ".join(cell.splitlines()).replace("|", "\\|") for cell in row] for row in (header, *rows)
    ]
    columns = list(zip(*texts, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    are_numbers = [all(NUMBER.match(cell) for cell in column[1:]) for column in columns]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(widths[i]) if are_numbers[i] else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ]
        return "| " + " | ".join(cells) + " |"

    rule = [
        "-" * (width - 1) + (":" if is_number else "-")
        for width, is_number in zip(widths, are_numbers, strict=True)
    ]
    return "\n".join([line(texts[0]), line(rule), *(line(row) for row in texts[1:])])


def number(value: float | None, *, digits: int = 4) -> str:
    """At least `digits` significant digits, never in powers of ten, whole parts never rounded away."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    leading_zeros = (
        0
        if whole
        else len(f"{abs(value):.10f}".split(".")[1])
        - len(f"{abs(value):.10f}".split(".")[1].lstrip("0"))
    )
    return f"{value:,.{max(0, digits - whole) + leading_zeros}f}"


def label(each: Metrics) -> str:
    """Submitter and system, with the preset where there is one, in few words."""
    name = f"{each.submitter} {each.system}"
    return f"{name} ({each.preset})" if each.preset else name


def notes(metrics: Sequence[Metrics]) -> list[str]:
    """What a reader needs to know about these sets."""
    found = [
        "Trimmed mean: of all runs without the fastest and the slowest. Times are run_stop - run_start."
    ]
    if any(each.is_throughput for each in metrics):
        found.append(
            "Side by side: from the first run_start to the last run_stop of all instances; the columns before it are of single instances."
        )
    if any(each.is_dap_size_inferred for each in metrics):
        found.append(
            "DAP with ~: not in the log; ranks divided by the samples of a batch, the remainder taken for evaluation."
        )
    if any(each.counts_micro_steps for each in metrics):
        found.append(
            "Batch 'n (k x)': k micro-steps of n samples make an optimizer step. Where s/step says 'micro', the log counts micro-steps, as the "
            "MLCommons reference does."
        )
    if any(each.reference_samples for each in metrics):
        found.append(
            "RCP: verdict of mlperf-logging's RCP checker (hpc 3.0.0). A time that passes is multiplied by the factor."
        )
    found += [
        f"{label(each)}: no verdict, {each.verdict_message}."
        for each in metrics
        if each.verdict == "no verdict"
    ]
    if any(each.share_of_peak is not None for each in metrics):
        found.append(
            "Share of peak: 53 TFLOP per sample and step over the dense peak of all accelerators in the logged precision."
        )
    return found


def _batch(each: Metrics) -> str:
    return f"{each.batch} ({each.accumulation} x)" if each.counts_micro_steps else str(each.batch)


def _runs(each: Metrics) -> str:
    return f"{each.runs}" + (f" (+{each.rejected} left out)" if each.rejected else "")


def _dap(each: Metrics) -> str:
    return (
        UNKNOWN
        if each.dap_size is None
        else f"{'~' if each.is_dap_size_inferred else ''}{each.dap_size}"
    )


def _verdict(each: Metrics) -> str:
    return f"{each.verdict} x {each.rcp_factor:.3f}" if each.verdict == NORMALISED else each.verdict


def _ratio(each: Metrics) -> str:
    if each.samples_trimmed_mean is None or each.reference_samples is None:
        return UNKNOWN
    return f"{each.samples_trimmed_mean / each.reference_samples:.3f}"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def _milliseconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else number(seconds * 1e3, digits=3)


def _accelerators(each: Metrics) -> str:
    if not each.accelerators:
        return f"{each.ranks} CPU ranks" if each.ranks > 1 else "1 CPU rank"
    return f"{each.accelerators:,}" + (f" {each.accelerator}" if each.accelerator else "")


SET_COLUMN: Column = ("set", label)
TIME_COLUMNS: tuple[Column, ...] = (
    SET_COLUMN,
    ("nodes", lambda each: str(each.nodes)),
    ("accelerators", _accelerators),
    ("DAP", _dap),
    ("batch", _batch),
    ("runs", _runs),
    ("converged", lambda each: str(each.converged)),
    ("min, minutes", lambda each: number(each.minutes_min)),
    ("trimmed mean", lambda each: number(each.minutes_trimmed_mean)),
    ("max", lambda each: number(each.minutes_max)),
    ("RCP-normalized mean", lambda each: number(each.minutes_normalized)),
    ("side by side", lambda each: number(each.minutes_side_by_side)),
)
CONVERGENCE_COLUMNS: tuple[Column, ...] = (
    SET_COLUMN,
    ("samples, least", lambda each: number(each.samples_min)),
    ("trimmed mean", lambda each: number(each.samples_trimmed_mean)),
    ("most", lambda each: number(each.samples_max)),
    ("reference", lambda each: number(each.reference_samples)),
    ("ratio", _ratio),
    ("RCP", _verdict),
)
SPEED_COLUMNS: tuple[Column, ...] = (
    SET_COLUMN,
    ("precision", lambda each: each.precision or UNKNOWN),
    (
        "s/step",
        lambda each: number(each.seconds_per_step) + (" micro" if each.counts_micro_steps else ""),
    ),
    ("samples/s", lambda each: number(each.samples_per_second)),
    ("of peak", lambda each: _percent(each.share_of_peak)),
    ("wait for data, ms/step", lambda each: _milliseconds(each.data_wait_seconds_per_step)),
    ("s/evaluation", lambda each: number(each.evaluation_seconds, digits=3)),
    (
        "training stood for it, min/run",
        lambda each: number(each.evaluation_minutes_alone, digits=3),
    ),
    ("before the clock, min", lambda each: number(each.init_minutes, digits=3)),
)
TABLES = (
    ("Time to train", TIME_COLUMNS),
    ("Samples to converge", CONVERGENCE_COLUMNS),
    ("Speed", SPEED_COLUMNS),
)
