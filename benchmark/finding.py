"""Results of checks: PASS, NOTE or FAIL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PASS: Literal["PASS"] = "PASS"
FAIL: Literal["FAIL"] = "FAIL"
NOTE: Literal["NOTE"] = "NOTE"
"""For information: a check that was skipped, or something that no rule requires."""
State = Literal["PASS", "FAIL", "NOTE"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    state: State
    subject: str
    """What was checked."""
    text: str
    """What was found, and what was expected."""
    remedy: str = ""
    """How to fix it, if the text does not say it."""

    @property
    def passed(self) -> bool:
        """Whether it is not a failure."""
        return self.state != FAIL

    def lines(self) -> list[str]:
        """Format the finding; lines after the first are indented."""
        first, *rest = self.text.splitlines() or [""]
        lines = [f"{self.state}  {self.subject}: {first}"] + [f"        {line}" for line in rest]
        return lines + [f"      -> {line}" for line in self.remedy.splitlines()]
