"""Read and write run.json, the state of the run of an output directory.

    starting -> running -> finished, failed or preempted

`starting` is before the first checkpoint: the next run starts from the beginning. `starting` or
`running` without the lock is a run that was killed. A run that can still write records why it
ended: `failed` with the error, or `preempted` if a signal stopped it after a checkpoint.
`resumable` is whether the next run continues this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.replace_file import replace_text
from benchmark.run.run_clock import RunDurations

STATE_FILE = "run.json"
Status = Literal["starting", "running", "finished", "failed", "preempted", "phase complete"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The exception that ended a run."""

    kind: str
    """One of the kinds of run/failure.py."""
    type: str
    message: str
    step: int | None
    """The last step that was reported, or the one that the error names."""
    rank: int | None
    """The rank that failed; for a lost rank, that rank."""
    sample_ids: tuple[str, ...] = ()
    traceback: str = ""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Failure:
        """Read an entry of the file. Raises KeyError or TypeError if it has other fields."""
        return cls(**{**content, "sample_ids": tuple(content["sample_ids"])})


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Content of run.json."""

    status: Status
    continued: bool = False
    """Whether an earlier process of this run ended after it had written a checkpoint."""
    num_resumptions: int = 0
    seed: int | None = None
    identity: Mapping[str, str | None]
    """Values that must not change when the run is resumed."""
    resumable: bool
    """Whether the next run continues this one. False for a finished run."""
    command: str | None = None
    """The command line that continues the run."""
    phase: str | None = None
    """Name of the current phase, or of the one that ended last; None: the run has one phase."""
    completed_phases: tuple[str, ...] = ()
    """Names of the phases that have ended, in order."""
    outcome: str | None = None
    """Of a finished run: "success" or "target not reached"."""
    clock: RunDurations | None = None
    error: Failure | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunState:
        """Read the content of a file. Raises KeyError, TypeError or ValueError if it has errors."""
        if content["status"] not in get_args(Status):
            raise ValueError(f"status {content['status']!r}")
        names = ("continued", "num_resumptions", "seed", "command", "phase", "outcome")
        clock, error = content.get("clock"), content.get("error")
        return cls(
            status=content["status"],
            identity=content.get("identity", {}),
            completed_phases=tuple(content.get("completed_phases", ())),
            # Earlier versions did not record it.
            resumable=content.get("resumable", content["status"] == "running"),
            clock=None if clock is None else RunDurations(**clock),
            error=None if error is None else Failure.from_json(error),
            **{name: content[name] for name in names if name in content},
        )

    def as_json(self) -> dict[str, object]:
        """Return the content of the file."""
        content = asdict(self) | {"identity": dict(self.identity)}
        is_finished = self.status == "finished"
        unused = {"resumable", "command"} if is_finished else {"outcome", "clock"}
        if self.error is None:
            unused.add("error")
        if self.phase is None:
            unused |= {"phase", "completed_phases"}
        return {name: value for name, value in content.items() if name not in unused}


def write_state(folder: Path, state: RunState) -> None:
    """Replace run.json."""
    replace_text(folder / STATE_FILE, json.dumps(state.as_json(), indent=1))


def read_state(folder: Path) -> RunState | None:
    """Return the content of run.json, or None if the file does not exist.

    Raises BenchmarkError if it cannot be read.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return None
    try:
        return RunState.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BenchmarkError(
            f"{file} cannot be read ({describe_error(error)}); expected the state of a run: name "
            "another directory"
        ) from error
