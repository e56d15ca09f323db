"""Read JSON files that users name, with errors that say what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError


def read_json(path: Path, *, expected: str) -> Any:
    """Return the value of a JSON file.

    Args:
        path: the file.
        expected: what it should be, for the error, such as "a record of `perf step --json`".

    Raises:
        BenchmarkError: The file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except (ValueError, RecursionError) as error:
        reason = f"is not JSON: {error}"
    raise BenchmarkError(f"{path} {reason}; expected {expected}")


def not_expected(path: Path, error: Exception, *, expected: str) -> BenchmarkError:
    """Return the error for a file whose JSON value lacks what is read from it."""
    found = f"has no field {error}" if isinstance(error, KeyError) else f"is another file ({error})"
    return BenchmarkError(f"{path} {found}; expected {expected}")
