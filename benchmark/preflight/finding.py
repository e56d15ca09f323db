"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check on one node."""

    check: str
    """Its name."""
    passed: bool
    text: str
    """What was found; after a failure also what was expected and what to do."""
    is_note: bool = False
    """Nothing was checked; the text says why."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; Finding(**values) is the finding again."""
        return asdict(self)


def lines_of(findings: dict[str, list[Finding]]) -> list[str]:
    """One line per check, with the nodes (host names, the keys) where nodes differ."""
    by_line: dict[tuple[str, str, str], list[str]] = {}
    for host, found in findings.items():
        for finding in found:
            hosts = by_line.setdefault((_verdict(finding), finding.check, finding.text), [])
            if host not in hosts:
                hosts.append(host)
    lines = []
    for (verdict, check, text), hosts in by_line.items():
        where = (
            ""
            if len(hosts) == len(findings)
            else f" [{', '.join(hosts[:8])}{', ...' if len(hosts) > 8 else ''}]"
        )
        lines.append(f"{verdict} {check}{where}: {text}")
    return lines


def _verdict(finding: Finding) -> str:
    if finding.is_note:
        return "NOTE"
    return "ok  " if finding.passed else "FAIL"
