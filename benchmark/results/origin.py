"""Infer submitter, system, accelerator and throughput from the path of a log and files near it.

Known layouts: MLCommons' <submitter>/results/<system>/{strong,weak}/<benchmark>/result_*.txt, with
the system description in <submitter>/systems/<system>.json; a folder named
<submitter>__<system>__{strong,weak}; and our output directory, with mlperf.log and config.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THROUGHPUT_NAME = re.compile(r"(^|[_.-])(weak|throughput)$")
"""End of the name of a folder with concurrent runs; MLCommons calls them `weak`."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Information from the path of a log. None means unknown."""

    submitter: str | None = None
    system: str | None = None
    accelerator: str | None = None
    preset: str | None = None
    dap_size: int | None = None
    is_throughput: bool = False


def describe_origin(folder: Path) -> Origin:
    """Return the information from the path of a folder with logs, and from files near it."""
    folder = folder.resolve()
    parts = folder.parts
    is_throughput = any(THROUGHPUT_NAME.search(part) for part in parts[-3:])
    submitter, system = None, None
    description: Mapping[str, Any] = {}
    fields = folder.name.split("__")
    # The last folder in the path with the name results; 0 if there is none.
    index = max((i for i, part in enumerate(parts[:-1]) if part == "results"), default=0)
    if index > 0 and _is_submission(Path(*parts[:index])):
        submitter, system = parts[index - 1], parts[index + 1]
        description = read_json(Path(*parts[:index], "systems", f"{system}.json"))
    elif len(fields) >= 2:
        submitter, system = fields[0], fields[1]
    config = read_json(folder / "config.json")
    accelerator = description.get("accelerator_model_name") or _lookup(
        config, "machine", "accelerator"
    )
    preset = config.get("preset")
    dap_size = _lookup(config, "config", "parallel", "dap_size")
    return Origin(
        submitter=submitter,
        system=system,
        accelerator=accelerator if isinstance(accelerator, str) and accelerator != "none" else None,
        preset=preset if isinstance(preset, str) else None,
        dap_size=dap_size if isinstance(dap_size, int) else None,
        is_throughput=is_throughput,
    )


def _is_submission(folder: Path) -> bool:
    """Return whether a folder is the <submitter> folder of MLCommons' layout."""
    return (folder / "systems").is_dir() or (folder / "benchmarks").is_dir()


def _lookup(content: object, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file, or an empty one if the file is missing or unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
