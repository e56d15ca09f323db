"""Findings: results of the checks of a submission."""

from __future__ import annotations

from dataclasses import dataclass

PASS = "PASS"
FAIL = "FAIL"
NOTE = "NOTE"
"""For information; not a requirement of the division."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check; `remedy` says how to fix it and may be empty."""

    state: str
    subject: str
    text: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """Format the finding; lines after the first are indented."""
        first, *rest = self.text.splitlines() or [""]
        lines = [f"{self.state}  {self.subject}: {first}"] + [f"        {line}" for line in rest]
        return lines + [f"      -> {line}" for line in self.remedy.splitlines()]
