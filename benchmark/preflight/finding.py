"""Results of checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check on one node."""

    check: str
    """Name of the check."""
    passed: bool
    text: str
    """What was found; after a failure also what was expected and how to fix it."""
    is_note: bool = False
    """Whether the check was skipped; the text says why."""

    def as_json(self) -> dict[str, Any]:
        """Return JSON values, from which Finding(**values) restores the finding."""
        return asdict(self)


def lines_of(findings: dict[str, list[Finding]]) -> list[str]:
    """Return a line per check, with the host names if the nodes differ.

    findings: host name -> findings of this node.
    """
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
