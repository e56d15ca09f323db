"""Scores of a chain: their order, their entry in the record, and the line of the progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfold_opt.predict.chain_record import ChainFailure, ChainRecord, ModelScores
from openfold_opt.predict.file_names import RECORD_SUFFIX
from openfold_opt.predict.models import TimedPrediction

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainFailure as UnusableChain

MAX_NAME_CHARACTERS = 100
"""A longer name of a chain is cut where it is printed."""


def rank_predictions(predictions: dict[str, TimedPrediction], *, by: str) -> list[str]:
    """Return the names of the weights, best first. Equal scores keep the order of the weights.

    by: "plddt" (mean over the residues) or "ptm". Without a pTM, "ptm" uses the mean pLDDT.
    """
    has_ptm = all(timed.prediction.ptm is not None for timed in predictions.values())

    def score(name: str) -> float:
        prediction = predictions[name].prediction
        return prediction.ptm if by == "ptm" and has_ptm else float(prediction.plddt.mean())

    return sorted(predictions, key=score, reverse=True)


def short_name(name: str) -> str:
    """Return a name, cut to MAX_NAME_CHARACTERS."""
    is_long = len(name) > MAX_NAME_CHARACTERS
    return name[: MAX_NAME_CHARACTERS - 3] + "..." if is_long else name


def line_of(record: ChainRecord) -> str:
    """Return the line of the progress for a chain."""
    start = f"{short_name(record.name)}: {record.num_residues:,} residues"
    if record.error is not None:
        return f"{start}, FAILED ({record.error.kind}): {record.error.message}"
    best = record.models[0]
    seconds = sum(model.seconds for model in record.models)
    passes = best.num_recycling_iterations + 1
    scores = f"mean pLDDT {best.mean_plddt:.2f}"
    if best.ptm is not None:
        scores += f", pTM {best.ptm:.3f}"
    if len(record.models) > 1:
        scores += f" (best of {len(record.models)}: {best.weights})"
    used = f"{_count(record.num_alignment_rows or 0, 'alignment row')}, " + _count(
        len(record.templates), "template"
    )
    line = f"{start}, {used}, {seconds:.1f} s, {passes} passes, {scores}"
    if not record.warnings:
        return line
    return f"{line}; {_count(len(record.warnings), 'warning')} in {record.stem}{RECORD_SUFFIX}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def model_scores(
    name: str,
    timed: TimedPrediction,
    *,
    rank: int,
    planned_peak_bytes: int,
    files: dict[str, str],
) -> ModelScores:
    """Return the entry of a set of weights in the record of a chain."""
    prediction = timed.prediction
    return ModelScores(
        rank=rank,
        weights=name,
        mean_plddt=round(float(prediction.plddt.mean()), 4),
        ptm=None if prediction.ptm is None else round(float(prediction.ptm), 4),
        max_pae=None if prediction.max_pae is None else float(prediction.max_pae),
        num_recycling_iterations=prediction.num_recycling_iterations,
        recycling_changes=tuple(round(float(x), 4) for x in prediction.recycling_changes),
        seconds=round(timed.seconds, 3),
        peak_bytes=timed.peak_bytes,
        planned_peak_bytes=planned_peak_bytes,
        plddt=tuple(round(float(x), 2) for x in prediction.plddt),
        files=files,
    )


def describe_failure(failure: UnusableChain) -> str:
    """Return the message about an unusable chain; it begins with the name of chain or file."""
    if failure.message.startswith((f"{failure.name} ", f"{failure.name}:")):
        return failure.message
    return f"{short_name(failure.name)}: {failure.message}"


def unusable_record(failure: UnusableChain, stem: str, *, run_id: str, seed: int) -> ChainRecord:
    """Return the record of a chain whose input cannot be used."""
    return ChainRecord(
        name=failure.name,
        stem=stem,
        sequence="",
        run_id=run_id,
        seed=seed,
        status="failed",
        error=ChainFailure(kind="input", message=failure.message),
    )
