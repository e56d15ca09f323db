"""Read what an output directory holds: its summary, the records of its chains, and its scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from openfold_opt.predict.chain_record import SCHEMA_VERSION as RECORD_VERSION
from openfold_opt.predict.comparison.compare_files import SCHEMA_VERSION as SCORES_VERSION
from openfold_opt.predict.comparison.run_scores import SCORES_FILE
from openfold_opt.predict.file_names import RECORD_SUFFIX
from openfold_opt.predict.summary import SCHEMA_VERSION as SUMMARY_VERSION
from openfold_opt.predict.summary import SUMMARY_FILE

_SUMMARY_KEYS = ("settings", "weights", "device", "versions", "pending", "chains")
_RECORD_KEYS = ("name", "stem", "sequence", "status", "models", "warnings", "templates")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Content of the JSON files of an output directory."""

    folder: Path
    summary: Mapping
    """summary.json."""
    records: tuple[Mapping, ...]
    """STEM.json of every chain, in the order of the summary."""
    scores: Mapping[str, Mapping] = field(default_factory=dict)
    """By stem: scores against the true structure, from scores.json."""
    score_failures: Mapping[str, str] = field(default_factory=dict)
    """By stem: why a chain has no scores."""


def read_results(folder: Path) -> Results:
    """Read an output directory of `openfold_opt.predict`.

    Raises:
        ValueError: there are no results, or a file is not what its name says or has another
            schema version.
        OSError: a file cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a directory; name the output directory of a prediction (its --out)"
        )
    if not (folder / SUMMARY_FILE).is_file():
        raise ValueError(
            f"{folder} has no {SUMMARY_FILE}; name the output directory of a prediction (its --out)"
        )
    summary = _read(folder / SUMMARY_FILE, version=SUMMARY_VERSION, keys=_SUMMARY_KEYS)
    chains = summary["chains"]
    if not chains:
        raise ValueError(
            f"{folder / SUMMARY_FILE} lists no chain with a result; predict chains first"
        )
    records = tuple(_read_record(folder, entry["stem"]) for entry in chains)
    scores, failures = {}, {}
    if (folder / SCORES_FILE).is_file():
        content = _read(folder / SCORES_FILE, version=SCORES_VERSION, keys=("chains",))
        scores, failures = content["chains"], content.get("failures", {})
    return Results(
        folder=folder,
        summary=summary,
        records=records,
        scores=scores,
        score_failures=failures,
    )


def _read_record(folder: Path, stem: str) -> Mapping:
    path = folder / (stem + RECORD_SUFFIX)
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, but {SUMMARY_FILE} lists the chain; run the prediction again, "
            "which predicts only what is missing"
        )
    return _read(path, version=RECORD_VERSION, keys=_RECORD_KEYS)


def _read(path: Path, *, version: int, keys: tuple[str, ...]) -> Mapping:
    """Read a JSON object and check its schema version and its keys."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; {_advice(path)}") from error
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found is None:
        raise ValueError(f"{path} is not a file of a prediction; {_advice(path)}")
    if found != version:
        raise ValueError(
            f"{path} has the schema version {found}, and this version of the package reads "
            f"{version}; make the report with the version that made the prediction, or predict "
            "again with --overwrite"
        )
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}; {_advice(path)}")
    return content


def _advice(path: Path) -> str:
    return f"remove {path.name} and run the prediction again, which writes it"
