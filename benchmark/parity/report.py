"""Format the table of comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.parity.comparison import Comparison

MAX_ROWS = 40
"""A longer section shows only its largest errors."""
_WORST_ROWS = 12


def format_table(comparisons: Sequence[Comparison]) -> str:
    """Return the relative errors and tolerances by section. Failures are always shown."""
    lines = []
    for section in dict.fromkeys(comparison.section for comparison in comparisons):
        rows = [comparison for comparison in comparisons if comparison.section == section]
        shown = rows if len(rows) <= MAX_ROWS else _worst(rows)
        num_within = sum(row.is_within for row in rows)
        lines.append(f"{section}: {num_within} of {len(rows)} within tolerance")
        lines += [f"  {row.name:<72} {row.error:10.2e}  {_limit(row)}" for row in shown]
        if len(shown) < len(rows):
            lines.append(f"  ({len(rows) - len(shown)} more with smaller errors)")
    return "\n".join(lines)


def _worst(rows: Sequence[Comparison]) -> list[Comparison]:
    ordered = sorted(rows, key=lambda row: row.error, reverse=True)
    return [row for index, row in enumerate(ordered) if index < _WORST_ROWS or not row.is_within]


def _limit(row: Comparison) -> str:
    return f"<= {row.tolerance:.0e}" if row.is_within else f"EXCEEDS {row.tolerance:.0e}"
