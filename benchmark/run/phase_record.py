"""Read the phases of a run from the config*.json files of its output directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """The key "phase" of a config*.json: a phase that started or continued."""

    name: str
    number: int
    """From 1."""
    count: int
    """Number of phases of the run."""
    steps_before: int
    """Optimizer steps of the run before the phase."""
    last_step: int
    """Step of the run after which the phase ends at the latest."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PhaseRecord:
        """Read the key. Raises KeyError or TypeError if it has other fields."""
        return cls(
            name=str(content["name"]),
            number=int(content["number"]),
            count=int(content["count"]),
            steps_before=int(content["steps_before"]),
            last_step=int(content["last_step"]),
        )

    @property
    def title(self) -> str:
        """Name and position, as "second (2 of 2)"."""
        return f"{self.name} ({self.number} of {self.count})"


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """A phase as the preset declares it."""

    name: str
    steps: int
    end_lddt_ca: float | None
    required_lddt_ca: float | None
    required_by_step: int | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PlannedPhase:
        """Read an entry of the key "phases". Raises KeyError if a field is missing."""
        names = ("name", "steps", "end_lddt_ca", "required_lddt_ca", "required_by_step")
        return cls(**{name: content[name] for name in names})

    @property
    def final_lddt_ca(self) -> float | None:
        """The score that the phase should reach at its end; None if it needs none."""
        return self.end_lddt_ca or self.required_lddt_ca

    @property
    def condition(self) -> str | None:
        """End and condition of the phase as text; None if it has neither."""
        texts = []
        if self.required_lddt_ca is not None:
            when = "at its end" if self.required_by_step is None else "by its step "
            when += "" if self.required_by_step is None else str(self.required_by_step)
            texts.append(f"lDDT-Ca {self.required_lddt_ca} {when}, else the run stops")
        if self.end_lddt_ca is not None:
            texts.append(f"ends at lDDT-Ca {self.end_lddt_ca}")
        return "; ".join(texts) or None


def config_files(folder: Path) -> list[Path]:
    """Return the config*.json files of a run, the newest last.

    A continued run adds config_continued_<n>.json, and the start of a phase config_phase_<n>.json.
    """
    return sorted(folder.glob("config*.json"), key=lambda path: path.stat().st_mtime_ns)


def read_phase_records(folder: Path) -> Sequence[PhaseRecord]:
    """Return the newest record of each phase that has started, in order; empty without phases.

    Files that cannot be read are skipped.
    """
    by_number: dict[int, PhaseRecord] = {}
    for path in config_files(folder):
        try:
            content = json.loads(path.read_text(encoding="utf-8")).get("phase")
            record = None if content is None else PhaseRecord.from_json(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # The curves of a run do not depend on a damaged record.
        if record is not None:
            by_number[record.number] = record
    return [by_number[number] for number in sorted(by_number)]
