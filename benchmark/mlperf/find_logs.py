"""Find MLPerf logs: those of our runs, and the result files of MLCommons submissions."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.run.output_directory import CONTINUED_LOG

RESULT_PATTERN = "result_*.txt"
"""Logs of several runs in one folder, as in MLCommons submissions."""
CONTINUED_PATTERN = CONTINUED_LOG.format("*")


def find_logs(path: Path, *patterns: str, is_deep: bool = False) -> list[Path]:
    """Return the files of a folder that match a pattern, in natural order; of a file, itself.

    Natural order is that of the numbers in the names, so result_10 comes after result_9.

    Args:
        path: a folder or a file.
        patterns: patterns of file names.
        is_deep: whether to search the folders below, too.

    Raises:
        BenchmarkError: The path does not exist.
    """
    if not path.exists():
        raise BenchmarkError(
            f"{path} does not exist; expected the log of a run, or a directory with logs"
        )
    if not path.is_dir():
        return [path]
    search = path.rglob if is_deep else path.glob
    found = {file for pattern in patterns for file in search(pattern) if file.is_file()}
    return sorted(found, key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", str(path))
    ]
