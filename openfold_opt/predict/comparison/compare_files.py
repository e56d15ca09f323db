"""Compare the files of predictions with true structures, so that one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.comparison.chain_scores import ChainScores, score_chain
from openfold_opt.predict.comparison.sequence_matching import MatchError
from openfold_opt.predict.comparison.structure_files import (
    NoTruthError,
    PredictionFile,
    TrueStructures,
)
from openfold_opt.predict.comparison.structure_reader import read_structures

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedChain:
    """A predicted chain that was compared with its true chain."""

    key: str
    """Stem of the prediction; with `_` and the name of the chain if the file has several."""
    prediction: PredictionFile
    predicted: ChainStructure
    truth_file: Path
    scores: ChainScores


@dataclass(frozen=True, kw_only=True)
class FailedComparison:
    """Why a prediction or one of its chains could not be compared."""

    key: str
    message: str
    has_truth: bool = True
    """False if no true structure belongs to the prediction."""


def compare_files(
    predictions: Sequence[PredictionFile],
    truths: TrueStructures,
    *,
    on_warning: Callable[[str], None] | None = None,
) -> Iterator[ComparedChain | FailedComparison]:
    """Compare every chain of every prediction with its true chain.

    A true chain is compared with at most one chain of a prediction file.

    Args:
        predictions: the files.
        truths: the true structures.
        on_warning: receives a line about each property of a prediction that is ignored.
    """
    for prediction in predictions:
        try:
            chains = read_structures(prediction.path, on_warning=on_warning)
            truth_file, candidates = truths.find(prediction, chains)
        except (ValueError, OSError) as error:
            has_truth = not isinstance(error, NoTruthError)
            yield FailedComparison(key=prediction.stem, message=str(error), has_truth=has_truth)
        else:
            yield from _compare_chains(prediction, chains, truth_file, candidates)


def _compare_chains(
    prediction: PredictionFile,
    chains: Sequence[ChainStructure],
    truth_file: Path,
    candidates: Sequence[ChainStructure],
) -> Iterator[ComparedChain | FailedComparison]:
    remaining = list(candidates)
    for chain in chains:
        key = prediction.stem if len(chains) == 1 else f"{prediction.stem}_{chain.name}"
        try:
            scores = score_chain(chain, remaining)
        except MatchError as error:
            yield FailedComparison(key=key, message=f"{truth_file}: {error}")
            continue
        remaining.remove(scores.match.true)
        yield ComparedChain(
            key=key, prediction=prediction, predicted=chain, truth_file=truth_file, scores=scores
        )


def scores_document(
    compared: Sequence[ComparedChain], failed: Sequence[FailedComparison]
) -> dict[str, object]:
    """Return the content of scores.json: schema version, scores and failures by key."""
    return {
        "schema_version": SCHEMA_VERSION,
        "chains": {chain.key: scores_entry(chain) for chain in compared},
        "failures": {failure.key: failure.message for failure in failed},
    }


def scores_entry(compared: ComparedChain) -> dict[str, object]:
    """Return the scores of a chain in the form of scores.json."""
    scores = compared.scores
    return {
        "truth": compared.truth_file.name,
        "truth_chain": scores.match.true.name,
        "identity": round(scores.match.identity, 4),
        "num_true": scores.num_true,
        "num_matched": scores.num_matched,
        **{name: round(value, 6) for name, value in chain_values(scores).items()},
        **{
            f"{name}_per_residue": [None if np.isnan(x) else round(float(x), 4) for x in values]
            for name, values in residue_values(scores).items()
        },
    }


def chain_values(scores: ChainScores) -> Mapping[str, float]:
    """Return the scores of a chain by name."""
    names = ("lddt_ca", "lddt_all_atom", "tm_score", "gdt_ts", "rmsd_ca")
    return {name: getattr(scores, name) for name in names}


def residue_values(scores: ChainScores) -> Mapping[str, np.ndarray]:
    """Return the scores of the residues of a predicted chain by name: [N_res] each."""
    names = ("lddt_ca", "lddt_all_atom", "ca_distance")
    return {name: getattr(scores, f"{name}_per_residue") for name in names}
