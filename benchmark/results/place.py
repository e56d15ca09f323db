"""What the place of a log tells about it: submitter, system, accelerator, and whether its runs went side by side.

Known layouts: MLCommons' <submitter>/results/<system>/{strong,weak}/<benchmark>/result_*.txt, with the system's description in
<submitter>/systems/<system>.json; a folder named <submitter>__<system>__{strong,weak}; and an output directory of ours, with
config.json beside mlperf.log.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THROUGHPUT_NAME = re.compile(r"(^|[_.-])(weak|throughput)$")
"""Ends the name of a folder whose runs went side by side; `weak` is MLCommons' word."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """None where the place does not tell."""

    submitter: str | None = None
    system: str | None = None
    accelerator: str | None = None
    preset: str | None = None
    dap_size: int | None = None
    is_throughput: bool = False


def describe_place(folder: Path) -> Place:
    """What the path of a folder with logs, and the files that belong to it, tell."""
    folder = folder.resolve()
    parts = folder.parts
    is_throughput = any(THROUGHPUT_NAME.search(part) for part in parts[-3:])
    submitter, system, description = None, None, {}
    chunks = folder.name.split("__")
    at = max((i for i, part in enumerate(parts[:-1]) if part == "results"), default=0)
    if at > 0 and _is_package(Path(*parts[:at])):
        submitter, system = parts[at - 1], parts[at + 1]
        description = read_json(Path(*parts[:at], "systems", f"{system}.json"))
    elif len(chunks) >= 2:
        submitter, system = chunks[0], chunks[1]
    config = read_json(folder / "config.json")
    accelerator = description.get("accelerator_model_name") or _of(config, "machine", "accelerator")
    preset = config.get("preset")
    dap_size = _of(config, "config", "parallel", "dap_size")
    return Place(
        submitter=submitter,
        system=system,
        accelerator=accelerator if isinstance(accelerator, str) and accelerator != "none" else None,
        preset=preset if isinstance(preset, str) else None,
        dap_size=dap_size if isinstance(dap_size, int) else None,
        is_throughput=is_throughput,
    )


def _is_package(folder: Path) -> bool:
    return (folder / "systems").is_dir() or (folder / "benchmarks").is_dir()


def _of(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty if there is none, or none that can be read: what it would add is then unknown."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
