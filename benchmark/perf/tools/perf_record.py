"""The record of a measurement: a JSON file that is rewritten as metrics are added.

An interrupted measurement keeps the metrics that it has.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
import sys
import types
import typing
from pathlib import Path
from typing import Any

from benchmark.command_line import check_json_option
from benchmark.machine import describe_machine, describe_versions
from benchmark.replace_file import replace_text


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
        check_json_option(path)
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
        replace_text(self._path, json.dumps(record, indent=1) + "\n")
        self._is_saved = True

    def save_interrupted(self) -> None:
        """Write a record without metrics if none was saved before."""
        if not self._is_saved:
            self.save({})


def from_json(kind: Any, value: Any) -> Any:
    """Build a value of type `kind` from what json.loads returned for its dataclasses.asdict.

    Supports dataclasses, lists, dicts, `X | None`, and values that JSON has itself. A field with a
    default may be missing.

    Raises:
        ValueError: The JSON has other fields than the dataclass.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        required = {
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if not isinstance(value, dict) or not required <= value.keys() <= fields.keys():
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"expected the fields {sorted(fields)}, found {found}")
        return kind(**{name: from_json(hints[name], item) for name, item in value.items()})
    if origin is types.UnionType and value is not None:
        (kind,) = [argument for argument in arguments if argument is not types.NoneType]
        return from_json(kind, value)
    if origin is list:
        return [from_json(arguments[0], item) for item in value]
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in value.items()}
    return value
