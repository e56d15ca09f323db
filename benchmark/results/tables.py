"""Format sets of runs as Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from benchmark.results.gather import Rejection
from benchmark.results.metrics import Metrics
from benchmark.results.peak import STEP_TFLOP
from benchmark.results.reference_points import NORMALIZED, NOT_CHECKED

UNKNOWN = "-"
NUMBER_CELL = re.compile(r"-$|~?\d[\d,.]*(%|\b)")
"""A cell of a column that is aligned to the right."""
Column = tuple[str, Callable[[Metrics], str]]
"""Header of a column, and the function that returns the cell of a set."""


def markdown(metrics: Sequence[Metrics], rejections: Sequence[Rejection]) -> str:
    """Return tables of time, convergence and speed, with notes and the skipped logs."""
    parts = []
    if metrics:
        parts += [f"### {title}\n\n{table(metrics, columns)}" for title, columns in TABLES]
        parts += ["\n".join(f"- {note}" for note in notes(metrics))]
    if rejections:
        lines = [f"- {rejection.path}: {rejection.reason}" for rejection in rejections]
        parts += ["### Skipped\n\n" + "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(metrics: Sequence[Metrics], columns: Sequence[Column]) -> str:
    """Return a Markdown table with one row per set."""
    return markdown_table(
        [[cell(each) for _, cell in columns] for each in metrics],
        header=[name for name, _ in columns],
    )


def markdown_table(rows: Sequence[Sequence[str]], *, header: Sequence[str]) -> str:
    """Return a Markdown table with aligned columns: numbers to the right, text to the left."""
    texts = [
        [" ".join(cell.splitlines()).replace("|", "\\|") for cell in row] for row in (header, *rows)
    ]
    columns = list(zip(*texts, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    are_numbers = [all(NUMBER_CELL.match(cell) for cell in column[1:]) for column in columns]

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


def format_number(value: float | None, *, digits: int = 4) -> str:
    """Format a number with at least `digits` significant digits, without an exponent.

    Integer parts are never rounded.
    """
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    decimals = f"{abs(value):.10f}".split(".")[1]
    leading_zeros = 0 if whole else len(decimals) - len(decimals.lstrip("0"))
    return f"{value:,.{max(0, digits - whole) + leading_zeros}f}"


def label(each: Metrics) -> str:
    """Return a short name of a set: submitter, system and preset, if known."""
    name = f"{each.submitter} {each.system}"
    return f"{name} ({each.preset})" if each.preset else name


def notes(metrics: Sequence[Metrics]) -> list[str]:
    """Return notes that explain the tables of these sets."""
    lines = [
        "Trimmed mean: mean without the fastest and the slowest run. Times are run_stop - "
        "run_start."
    ]
    if any(each.is_throughput for each in metrics):
        lines.append(
            "Side by side: time from the first run_start to the last run_stop of all concurrent "
            "runs; the columns before it are of single runs."
        )
    if any(each.is_dap_size_inferred for each in metrics):
        lines.append(
            "DAP with ~: not in the log; inferred as ranks divided by the samples of a batch, "
            "assuming that the remaining ranks evaluate."
        )
    if any(each.counts_micro_steps for each in metrics):
        lines.append(
            "Batch 'n (k x)': k micro-steps of n samples make an optimizer step. 'micro' in "
            "s/step: the log counts micro-steps, as the MLCommons reference does."
        )
    if any(each.reference_samples for each in metrics):
        lines.append(
            "RCP: result of mlperf-logging's RCP checker (hpc 3.0.0). If the set passes, its time "
            "is multiplied by the factor."
        )
    lines += [
        f"{label(each)}: {NOT_CHECKED}, {each.verdict_message}."
        for each in metrics
        if each.verdict == NOT_CHECKED
    ]
    if any(each.share_of_peak is not None for each in metrics):
        lines.append(
            f"Share of peak: {STEP_TFLOP:.0f} TFLOP per sample and step, divided by the dense peak "
            "of all accelerators in the logged precision."
        )
    return lines


def _batch(each: Metrics) -> str:
    return f"{each.batch} ({each.accumulation} x)" if each.counts_micro_steps else str(each.batch)


def _runs(each: Metrics) -> str:
    return f"{each.runs}" + (f" (+{each.rejected} skipped)" if each.rejected else "")


def _dap(each: Metrics) -> str:
    return (
        UNKNOWN
        if each.dap_size is None
        else f"{'~' if each.is_dap_size_inferred else ''}{each.dap_size}"
    )


def _convergence(each: Metrics) -> str:
    return f"{each.verdict} x {each.rcp_factor:.3f}" if each.verdict == NORMALIZED else each.verdict


def _ratio(each: Metrics) -> str:
    if each.samples_trimmed_mean is None or each.reference_samples is None:
        return UNKNOWN
    return f"{each.samples_trimmed_mean / each.reference_samples:.3f}"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def _milliseconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else format_number(seconds * 1e3, digits=3)


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
    ("min, minutes", lambda each: format_number(each.minutes_min)),
    ("trimmed mean", lambda each: format_number(each.minutes_trimmed_mean)),
    ("max", lambda each: format_number(each.minutes_max)),
    ("RCP-normalized mean", lambda each: format_number(each.minutes_normalized)),
    ("side by side", lambda each: format_number(each.minutes_side_by_side)),
)
CONVERGENCE_COLUMNS: tuple[Column, ...] = (
    SET_COLUMN,
    ("samples, min", lambda each: format_number(each.samples_min)),
    ("trimmed mean", lambda each: format_number(each.samples_trimmed_mean)),
    ("max", lambda each: format_number(each.samples_max)),
    ("reference", lambda each: format_number(each.reference_samples)),
    ("ratio", _ratio),
    ("RCP", _convergence),
)
SPEED_COLUMNS: tuple[Column, ...] = (
    SET_COLUMN,
    ("precision", lambda each: each.precision or UNKNOWN),
    (
        "s/step",
        lambda each: (
            format_number(each.seconds_per_step) + (" micro" if each.counts_micro_steps else "")
        ),
    ),
    ("samples/s", lambda each: format_number(each.samples_per_second)),
    ("of peak", lambda each: _percent(each.share_of_peak)),
    ("wait for data, ms/step", lambda each: _milliseconds(each.data_wait_seconds_per_step)),
    ("s/evaluation", lambda each: format_number(each.evaluation_seconds, digits=3)),
    (
        "evaluation only, min/run",
        lambda each: format_number(each.evaluation_minutes_alone, digits=3),
    ),
    ("initialization, min", lambda each: format_number(each.init_minutes, digits=3)),
)
TABLES = (
    ("Time to train", TIME_COLUMNS),
    ("Samples to converge", CONVERGENCE_COLUMNS),
    ("Speed", SPEED_COLUMNS),
)
