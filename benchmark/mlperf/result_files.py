"""Names of the logs of several runs in one folder, as in MLCommons submissions."""

from __future__ import annotations

import re
from pathlib import Path

RESULT_PATTERN = "result_*.txt"


def by_number(path: Path) -> list[tuple[int, str]]:
    """Return a sort key with numbers as numbers, so that result_10 comes after result_9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", str(path))
    ]
