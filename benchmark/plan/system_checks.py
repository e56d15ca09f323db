"""Checks of the fields of a system's JSON file: names, texts, and ranges of numbers."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

Range = tuple[float, float]
"""Least and greatest value."""


def check_number(name: str, value: Any, allowed: Range) -> None:
    """Raise ValueError if a value is not a number in a range."""
    if not isinstance(value, int | float) or not _is_in(value, allowed):
        raise ValueError(_error(name, value, f"a number {_bounds(allowed)}"))


def check_whole(name: str, value: Any, allowed: Range) -> None:
    """Raise ValueError if a value is not a whole number in a range."""
    if not isinstance(value, int) or not _is_in(value, allowed):
        raise ValueError(_error(name, value, f"a whole number {_bounds(allowed)}"))


def check_line(name: str, value: Any) -> None:
    """Raise ValueError if a value is not a text of one line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(_error(name, value, "a text of one line"))


def check_sources(sources: Any, fields: Collection[str]) -> None:
    """Raise ValueError if a value does not map fields of the system to texts."""
    check_object("sources", sources)
    unknown = sorted(sources.keys() - set(fields))
    if unknown:
        raise ValueError(f"sources: unknown field {_names(unknown)}; expected {', '.join(fields)}")
    for name, text in sources.items():
        check_line(f"sources.{name}", text)


def check_object(name: str, value: Any) -> None:
    """Raise ValueError if a value is not a JSON object."""
    if not isinstance(value, Mapping):
        raise ValueError(_error(name, value, "an object"))


def checked_fields(
    kind: Any, value: Any, example: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """Return a copy of the fields of a JSON object that a dataclass is built from.

    Args:
        example: a value for each field, for errors.
        where: name of the object in the file; "" for the file itself.

    Raises:
        ValueError: A field is missing or unknown.
    """
    fields = {each.name: each for each in dataclasses.fields(kind)}
    if not isinstance(value, dict):
        raise ValueError(_error(where or "the file", value, f"an object: {example}"))
    prefix = f"{where}." if where else ""
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        names = _names([prefix + name for name in unknown])
        raise ValueError(f"unknown field {names}; expected {', '.join(fields)}")
    for name, each in fields.items():
        required = each.default is dataclasses.MISSING
        required = required and each.default_factory is dataclasses.MISSING
        if required and value.get(name) is None:
            shown = json.dumps({name: example[name]})[1:-1]
            raise ValueError(f"{prefix}{name} is missing; example: {shown}")
    return dict(value)


def _is_in(value: float, allowed: Range) -> bool:
    low, high = allowed
    return not isinstance(value, bool) and low <= value <= high


def _bounds(allowed: Range) -> str:
    low, high = allowed
    return f"from {low:g} to {high:g}"


def _names(names: Collection[str]) -> str:
    """Return names of fields as one line."""
    return ", ".join(name if name.isprintable() else repr(name) for name in names)


def _error(name: str, value: Any, expected: str) -> str:
    # A value of a damaged file may have many digits, or lists in lists.
    return f"{_names([name])} is {reprlib.repr(value)}; expected {expected}"
