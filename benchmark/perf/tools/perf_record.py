"""The record of a measurement: a JSON file that is rewritten as metrics are added.

An interrupted measurement keeps the metrics that it has.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import reprlib
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

    def save(self, metrics: Any, *, is_complete: bool = False) -> None:
        """Replace the file atomically by a record with these metrics, a dataclass."""
        self._write(to_json(metrics), is_complete=is_complete)

    def save_interrupted(self) -> None:
        """Write a record without metrics if none was saved before."""
        if not self._is_saved:
            self._write({}, is_complete=False)

    def _write(self, figures: Any, *, is_complete: bool) -> None:
        if self._path is None:
            return
        # Records call the metrics "figures".
        record = {**self._header, "is_complete": is_complete, "figures": figures}
        replace_text(self._path, json.dumps(record, indent=1) + "\n")
        self._is_saved = True


def json_key(key: str) -> Any:
    """Return a dataclass field whose key in JSON is not its name."""
    return dataclasses.field(metadata={"json_key": key})


def _key(field: dataclasses.Field) -> str:
    return field.metadata.get("json_key", field.name)


def to_json(value: Any) -> Any:
    """Replace the dataclasses in a value by dicts, for json.dumps; from_json reads the result.

    This is dataclasses.asdict, but a field that is None by default is omitted while it is None.
    """
    if dataclasses.is_dataclass(value):
        items = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {
            _key(field): to_json(item)
            for field, item in items
            if item is not None or field.default is not None
        }
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


@functools.cache
def _type_hints(kind: Any) -> dict[str, Any]:
    """Return the types of the fields. A table has thousands of values of the same class."""
    return typing.get_type_hints(kind)


def from_json(kind: Any, value: Any) -> Any:
    """Build a value of type `kind` from what json.loads returned for its to_json.

    Supports dataclasses, lists, dicts, `X | None`, and values that JSON has itself. A field with a
    default may be missing.

    Raises:
        ValueError: The JSON has other fields than the dataclass, or no list or dict where the
        dataclass has one.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = _type_hints(kind)
        fields = {_key(field): field for field in dataclasses.fields(kind)}
        required = {
            key
            for key, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if not isinstance(value, dict) or not required <= value.keys() <= fields.keys():
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"expected the fields {sorted(fields)}, found {found}")
        values = {
            fields[key].name: from_json(hints[fields[key].name], item)
            for key, item in value.items()
        }
        return typing.cast(Any, kind)(**values)
    if origin is types.UnionType and value is not None:
        (kind,) = [argument for argument in arguments if argument is not types.NoneType]
        return from_json(kind, value)
    if origin in (list, dict) and not isinstance(value, origin):
        raise ValueError(f"expected a {origin.__name__}, found {reprlib.repr(value)}")
    if origin is list:
        return [from_json(arguments[0], item) for item in value]
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in value.items()}
    return value
