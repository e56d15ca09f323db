"""Find MLPerf logs: those of our runs, and the result files of MLCommons submissions."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.run.output_directory import CONTINUED_LOG

RESULT_PATTERN = "result_*.txt"
"""Logs of several runs in one folder, as in MLCommons submissions."""
CONTINUED_PATTERN = CONTINUED_LOG.format("*")


def find_logs(path: Path, *patterns: str, recursive: bool = False) -> list[Path]:
    """Return the files in a folder whose names match a pattern, in natural order.

    In natural order, result_10 comes after result_9.

    Args:
        path: a folder, or a file, which is returned whatever its name is.
        patterns: patterns of file names.
        recursive: whether to search the folders below, too.

    Raises:
        BenchmarkError: The path does not exist.
    """
    if not path.exists():
        raise BenchmarkError(
            f"{path} does not exist; expected the log of a run, or a directory with logs"
        )
    if not path.is_dir():
        return [path]
    search = path.rglob if recursive else path.glob
    found = {file for pattern in patterns for file in search(pattern) if file.is_file()}
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", str(path))
    ]
