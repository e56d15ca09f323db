"""Checks the models of time and memory of predictions on published and recorded ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.perf.tools.timing_stats import table
from benchmark.plan.prediction_fit import (
    BREAK,
    Errors,
    TimeFit,
    Work,
    fit_times,
    leave_one_out,
    predicted_memory,
)
from benchmark.plan.prediction_records import RecordedPredictions
from benchmark.plan.prediction_work import alphafold2_work, alphafold3_work
from benchmark.plan.published_predictions import (
    ALPHAFOLD2_A100,
    PUBLISHED_MEMORY,
    PUBLISHED_TIMES,
    PublishedTimes,
)
from openfold_opt.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """How well a published table is predicted."""

    published: PublishedTimes
    fit: TimeFit
    errors: dict[int, float]
    """Each length, predicted from the others."""
    baseline: dict[int, float]
    """The same with one constant rate."""
    ratios_above: dict[int, float]
    """Lengths above those of the fit -> measured / predicted."""

    @property
    def first_break(self) -> int | None:
        """The first length that takes longer than predicted by the factor BREAK."""
        return next((n for n, ratio in self.ratios_above.items() if ratio > BREAK), None)

    def predicted(self) -> dict[int, float]:
        """Return the seconds of every published length; a fitted one without itself."""
        return {
            n: measured * (1 + self.errors[n]) if n in self.errors else self.fit.seconds(n)
            for n, measured in self.published.seconds.items()
        }

    def as_json(self) -> dict[str, object]:
        """Return every number of the check."""
        return {
            "name": self.published.name,
            "gpu": self.published.gpu,
            "source": self.published.source,
            "terms": dict(zip(self.fit.terms, self.fit.numbers, strict=True)),
            "measured_seconds": dict(self.published.seconds),
            "predicted_seconds": self.predicted(),
            "errors": self.errors,
            "baseline_errors": self.baseline,
            "ratios_above": self.ratios_above,
            "first_break": self.first_break,
        }


def check_tables() -> list[TableCheck]:
    """Predict every length of every published table from the others."""
    return [_check_table(published) for published in PUBLISHED_TIMES]


def _check_table(published: PublishedTimes) -> TableCheck:
    work, seconds = work_of(published), published.fitted()
    fit = fit_times(seconds, published.terms, work)
    return TableCheck(
        published=published,
        fit=fit,
        errors=leave_one_out(seconds, published.terms, work),
        baseline=leave_one_out(seconds, ("work",), work),
        ratios_above={n: value / fit.seconds(n) for n, value in published.longer().items()},
    )


def work_of(published: PublishedTimes) -> Work:
    """Return the function that counts the work of the model of a table."""
    if published.model == "alphafold3":
        return alphafold3_work
    config = ModelConfig()
    return lambda num_residues: alphafold2_work(num_residues, config=config)


def describe_checks(checks: Sequence[TableCheck]) -> str:
    """Format the table of all checks, and the lengths of AlphaFold2's."""
    rows = [
        [
            f"{check.published.name}, {check.published.gpu}",
            str(len(check.errors)),
            str(len(check.fit.terms)),
            str(Errors.of(check.errors)),
            str(Errors.of(check.baseline)),
        ]
        for check in checks
    ]
    header = ["published", "lengths", "fitted", "error, one left out", "one constant rate"]
    lines = [table(rows, header=header)]
    for check in checks:
        lines.append(f"{check.published.name}, {check.published.gpu}: {check.fit.describe()}")
        if check.first_break is not None:
            lines.append(
                f"  break at {check.first_break:,}: "
                + ", ".join(f"{n:,} {ratio:.2f}x" for n, ratio in check.ratios_above.items())
                + " measured / predicted"
            )
        if check.published.note:
            lines.append(f"  {check.published.note}")
    (alphafold2,) = [check for check in checks if check.published is ALPHAFOLD2_A100]
    return "\n\n".join(["\n".join([lines[0], "", *lines[1:]]), _describe_lengths(alphafold2)])


def _describe_lengths(check: TableCheck) -> str:
    rows, all_predicted = [], check.predicted()
    for length, measured in check.published.seconds.items():
        error, predicted = check.errors.get(length), all_predicted[length]
        ratio = check.ratios_above.get(length)
        rows.append(
            [
                f"{length:,}",
                f"{measured:,.0f}" if measured >= 10 else f"{measured}",
                f"{predicted:,.1f}",
                "not fitted" if error is None else f"{error:+.1%}",
                "" if ratio is None else f"{ratio:.2f}x",
            ]
        )
    header = ["residues", "measured s", "predicted s", "error", "measured / predicted"]
    return f"{check.published.name}, {check.published.gpu}\n\n{table(rows, header=header)}"


def describe_memory() -> str:
    """Format the published peaks that others predict."""
    rows = [
        [
            memory.name,
            f"{memory.length:,}",
            f"{memory.found:.1f}",
            f"{predicted_memory(memory):.1f}",
            f"{predicted_memory(memory) / memory.found - 1:+.1%}",
        ]
        for memory in PUBLISHED_MEMORY
    ]
    return table(rows, header=["memory, GB", "residues", "published", "predicted", "error"])


def memory_json() -> list[dict[str, object]]:
    """Return every number of `describe_memory`."""
    return [
        {
            "name": memory.name,
            "source": memory.source,
            "length": memory.length,
            "published_gb": memory.found,
            "predicted_gb": predicted_memory(memory),
        }
        for memory in PUBLISHED_MEMORY
    ]


def describe_record(record: RecordedPredictions) -> str:
    """Say how well the times of a record are predicted, one length left out."""
    errors = record.errors()
    device = "CPU seconds" if record.is_cpu else f"seconds on {record.gpu or 'an unknown GPU'}"
    lengths = ", ".join(
        f"{n:,}: {seconds:.2f} s" + (f" ({errors[n]:+.1%})" if n in errors else "")
        for n, seconds in record.seconds.items()
    )
    summary = f"error, one left out: {Errors.of(errors)}" if errors else "too few lengths to check"
    rate = record.fit().describe()
    return f"{record.path} ({device}): {rate}; {summary}\n  {lengths}"
