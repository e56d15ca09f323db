"""What a check of a submission found."""

from __future__ import annotations

from dataclasses import dataclass

PASS = "PASS"
FAIL = "FAIL"
NOTE = "NOTE"
"""Worth knowing, but not demanded by the division."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report; remedy says what to do and is empty where there is nothing to do."""

    state: str
    subject: str
    text: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """The finding as text, its further lines indented."""
        first, *rest = self.text.splitlines() or [""]
        lines = [f"{self.state}  {self.subject}: {first}"] + [f"        {line}" for line in rest]
        return lines + [f"      -> {line}" for line in self.remedy.splitlines()]
