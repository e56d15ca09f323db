"""Data of one chain for the page: its row of the table, and everything that is drawn of it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from openfold_opt.predict.file_names import PAE, PICTURE, RELAXED, STRUCTURE
from openfold_opt.predict.report.pae_pixels import read_pae_image
from openfold_opt.predict.report.results import Results

STRUCTURE_KINDS = (STRUCTURE, RELAXED)
EMBEDDED_KINDS = (*STRUCTURE_KINDS, PAE, PICTURE)
"""Kinds of files of a chain that are part of the page. It has links to the others."""


def table_row(results: Results, record: Mapping) -> dict[str, object]:
    """Return the entry of a chain in the table; values that do not exist are None."""
    models = record["models"]
    best = models[0] if models else {}
    scores = results.scores.get(record["stem"], {})
    error = record.get("error") or {}
    return {
        "name": record["name"],
        "stem": record["stem"],
        "status": record["status"],
        "num_residues": len(record["sequence"]) or None,
        "num_alignment_rows": record.get("num_alignment_rows"),
        "num_templates": len(record["templates"]) if models else None,
        "mean_plddt": best.get("mean_plddt"),
        "ptm": best.get("ptm"),
        "seconds": sum(model["seconds"] for model in models) if models else None,
        "peak_bytes": max((model["peak_bytes"] for model in models), default=None),
        "planned_bytes": max((model["planned_peak_bytes"] for model in models), default=None),
        "lddt_ca": scores.get("lddt_ca"),
        "tm_score": scores.get("tm_score"),
        "error": f"{error['kind']}: {error['message']}" if error else None,
    }


def chain_data(results: Results, record: Mapping) -> dict[str, object]:
    """Return the record of a chain with the content of its files.

    Files that the record lists and that are not there are named in `missing`.

    Raises:
        ValueError: a file is not what the record says.
        OSError: a file cannot be read.
    """
    stem = record["stem"]
    scores = results.scores.get(stem)
    data: dict[str, dict] = {"structures": {}, "pae": {}, "pictures": {}}
    missing = []
    for kind, name in _embedded_files(record, scores):
        path = _path(results.folder, name, stem)
        if not path.is_file():
            missing.append(name)
        elif kind in STRUCTURE_KINDS:
            data["structures"][name] = path.read_text(encoding="utf-8")
        elif kind == PAE:
            image = read_pae_image(path, num_residues=len(record["sequence"]))
            data["pae"][name] = {
                "block": image.block,
                "num_pixels": len(image.tenths),
                "planes": base64.b64encode(image.planes()).decode(),
            }
        else:
            data["pictures"][name] = base64.b64encode(path.read_bytes()).decode()
    return {
        **data,
        "record": record,
        "missing": missing,
        "scores": scores,
        "score_failure": results.score_failures.get(stem),
    }


def compress(content: bytes) -> str:
    """Return gzip of the content in base64. The page reverses this with DecompressionStream."""
    # Without a time stamp, so that equal content gives equal files.
    return base64.b64encode(gzip.compress(content, compresslevel=5, mtime=0)).decode()


def compress_json(content: Mapping) -> str:
    """Return `compress` of the content as JSON."""
    return compress(json.dumps(content).encode())


def _embedded_files(record: Mapping, scores: Mapping | None) -> Iterator[tuple[str, str]]:
    """Yield kind and name of every file to embed."""
    for model in record["models"]:
        for kind in EMBEDDED_KINDS:
            if kind in model["files"]:
                yield kind, model["files"][kind]
    if scores and scores.get("picture"):
        yield PICTURE, scores["picture"]


def _path(folder: Path, name: str, stem: str) -> Path:
    """Return the path of a file of a chain. A file that was edited may name other directories."""
    if Path(name).name != name:
        raise ValueError(
            f"the record of {stem} names the file {name!r}; expected a file in {folder}"
        )
    return folder / name
