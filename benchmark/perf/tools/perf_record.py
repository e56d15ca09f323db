"""The record of a measurement: a JSON file that is rewritten as metrics are added.

An interrupted measurement keeps the metrics that it has.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.machine import describe_machine, describe_versions


class RecordFile:
    """Writes metrics with machine, versions and command. Without a path it does nothing."""

    def __init__(self, path: Path | None, *, measurement: str) -> None:
        """Collect machine, versions and command.

        Raises:
            BenchmarkError: The folder of the path does not exist.
        """
        self._path = path
        self._is_saved = False
        if path is None:
            return
        if not path.parent.is_dir():
            raise BenchmarkError(
                f"--json {path}: the folder {path.parent} does not exist; create it first"
            )
        self._header = {
            "measurement": measurement,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "-m", "benchmark", *sys.argv[1:]]),
            "machine": describe_machine(),
            "versions": describe_versions(),
        }

    def save(self, metrics: dict[str, Any], *, is_complete: bool = False) -> None:
        """Replace the file atomically by a record with these metrics."""
        if self._path is None:
            return
        record = {**self._header, "is_complete": is_complete, "figures": metrics}
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._path)
        self._is_saved = True

    def save_interrupted(self) -> None:
        """Write a record without metrics if none was saved before."""
        if not self._is_saved:
            self.save({})
