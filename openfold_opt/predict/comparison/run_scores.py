"""scores.json: the chains of an output directory, compared with true structures.

The file has the scores of every chain with a truth (compare_files.py), and STEM_superposed.png
shows the chain over its truth. docs/scores.md describes the fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from openfold_opt.predict.chain_record import read_record
from openfold_opt.predict.comparison.compare_files import (
    SCHEMA_VERSION,
    ComparedChain,
    FailedComparison,
    chain_values,
    compare_files,
    scores_document,
)
from openfold_opt.predict.comparison.structure_files import (
    PathError,
    TrueStructures,
    list_predictions,
)
from openfold_opt.predict.file_names import SUFFIXES, SUPERPOSITION
from openfold_opt.predict.pictures.superposition import draw_superposition
from openfold_opt.predict.scores import short_name
from openfold_opt.protein.shard_format import write_atomically

SCORES_FILE = "scores.json"
PICTURE_SUFFIX = SUFFIXES[SUPERPOSITION]


def score_run(
    folder: Path, truths: TrueStructures, *, with_pictures: bool, write_line: Callable[[str], None]
) -> None:
    """Compare the finished chains of an output directory with their true structures.

    Writes scores.json, the pictures, and a line per chain and for the mean. A chain without truth
    has no line, and a truth that cannot be used has a line with the reason.

    Args:
        folder: the output directory.
        truths: the true structures.
        with_pictures: whether to draw the pictures.
        write_line: receives the lines.

    Raises:
        OSError: the disk is full.
    """
    try:
        predictions = list_predictions(folder)
    except PathError:
        # No chain is finished.
        return
    compared: list[ComparedChain] = []
    without: list[str] = []
    failed: list[FailedComparison] = []
    pictures: dict[str, str] = {}
    for result in compare_files(predictions, truths, on_warning=write_line):
        if isinstance(result, ComparedChain):
            compared.append(result)
            write_line(f"{short_name(result.prediction.name)}: {_describe(result)}")
            if with_pictures:
                pictures[result.key] = result.key + PICTURE_SUFFIX
                _draw(folder, result)
        elif result.has_truth:
            failed.append(result)
            write_line(f"{result.key}: not compared with its truth: {result.message}")
        else:
            without.append(result.message)
    document = scores_document(compared, failed)
    for key, name in pictures.items():
        document["chains"][key]["picture"] = name
    write_atomically(folder / SCORES_FILE, json.dumps(document).encode())
    write_line(_describe_mean(compared, num_chains=len(predictions)))
    if without and not compared:
        write_line(without[0])


def remove_scores(folder: Path, stems: Collection[str]) -> None:
    """Remove the scores and pictures of chains that are predicted again.

    Does nothing if the directory has no scores, or has those of another version.

    Raises:
        OSError: the directory cannot be written.
    """
    path = folder / SCORES_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version, kinds = document["schema_version"], (document["chains"], document["failures"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if version != SCHEMA_VERSION:
        return
    for stem in stems:
        (folder / (stem + PICTURE_SUFFIX)).unlink(missing_ok=True)
        for entries in kinds:
            entries.pop(stem, None)
    write_atomically(path, json.dumps(document).encode())


def _describe(compared: ComparedChain) -> str:
    """Return the scores of a chain as text."""
    scores = compared.scores
    return (
        f"lDDT-Ca {scores.lddt_ca:.4f}, TM-score {scores.tm_score:.4f}, GDT-TS "
        f"{scores.gdt_ts:.4f} of {scores.num_matched} of {scores.num_true} residues of "
        f"{compared.truth_file.name}, chain {scores.match.true.name}"
    )


def _describe_mean(compared: list[ComparedChain], *, num_chains: int) -> str:
    if not compared:
        return f"none of {num_chains} chains has a true structure that can be compared"
    values = [chain_values(chain.scores) for chain in compared]
    mean = {name: np.mean([value[name] for value in values]) for name in values[0]}
    return (
        f"mean of {len(compared)} of {num_chains} chains with a truth: lDDT-Ca "
        f"{mean['lddt_ca']:.4f}, TM-score {mean['tm_score']:.4f}, GDT-TS {mean['gdt_ts']:.4f}; "
        f"more in {SCORES_FILE}"
    )


def _draw(folder: Path, compared: ComparedChain) -> None:
    name, predicted = compared.prediction.name, compared.predicted
    record = read_record(folder, compared.prediction.stem)
    if record is not None and record.num_residues == predicted.num_residues:
        predicted = replace(predicted, plddt=np.array(record.models[0].plddt, np.float32))
    scores = compared.scores
    true_name = f"{compared.truth_file.name}, chain {scores.match.true.name}"
    draw_superposition(
        folder / (compared.key + PICTURE_SUFFIX),
        replace(predicted, name=name),
        replace(scores.superposed_true, name=true_name),
        scores=f"TM-score {scores.tm_score:.3f}, lDDT-Ca {scores.lddt_ca:.3f}, GDT-TS "
        f"{scores.gdt_ts:.3f}, RMSD {scores.rmsd_ca:.2f} Å of {scores.num_matched} CA atoms",
    )
