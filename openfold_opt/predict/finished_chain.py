"""The end of a chain: all its files are written, and its record says what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openfold_opt.predict.chain_record import ChainRecord, ModelScores
from openfold_opt.predict.chain_results import ChainResult, chain_result, write_result
from openfold_opt.predict.models import ChainOptions, ChainPlan, TimedPrediction
from openfold_opt.predict.output_files import ChainFiles
from openfold_opt.predict.picture_file import write_picture
from openfold_opt.predict.relaxation.chain_relaxation import relax_results
from openfold_opt.predict.run_settings import WeightsFacts
from openfold_opt.predict.scores import model_scores, rank_predictions

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainInput, PreparedChain


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Prediction of a chain with one set of weights, and what it was made from."""

    weights: WeightsFacts
    prepared: PreparedChain
    """Without features."""
    timed: TimedPrediction
    plan: ChainPlan


def finish_chain(
    record: ChainRecord,
    chain: ChainInput,
    files: ChainFiles,
    *,
    outcomes: Sequence[Outcome],
    options: ChainOptions,
    warn: Callable[[Sequence[str]], None],
) -> ChainRecord:
    """Write the files of a chain, and return its complete record.

    Args:
        record: without results.
        chain: the chain.
        files: with the rows of the matrices.
        outcomes: of each set of weights, in the order of the command line.
        options: what is written.
        warn: receives warnings about the files, to print them.

    Raises:
        OSError: the disk is full.
        ValueError: rows of a matrix are missing.
    """
    by_name = {outcome.weights.name: outcome for outcome in outcomes}
    predictions = {name: outcome.timed for name, outcome in by_name.items()}
    ranking = rank_predictions(predictions, by=options.rank_by)
    results = {
        name: _result(chain, outcome, seed=options.seed) for name, outcome in by_name.items()
    }
    ranked = [results[name] for name in ranking]
    warnings = _write_files(files, ranked, options)
    relaxations, problems = _relax(files, ranked, options)
    warnings = _merged(warnings, problems)
    warn(warnings)
    names = files.finish(ranking)
    prepared = [outcome.prepared for outcome in outcomes]
    return replace(
        record,
        warnings=_merged(
            record.warnings,
            *(outcome.prepared.warnings for outcome in outcomes),
            *(outcome.timed.warnings for outcome in outcomes),
            warnings,
        ),
        num_alignment_rows=prepared[0].num_alignment_rows,
        alignment_depth=prepared[0].alignment_depth,
        templates=_merged(*(x.templates for x in prepared)),
        input_hash=prepared[0].input_hash,
        structure=files.best_structure,
        models=tuple(
            _scores(by_name[name], rank=rank, files=kinds, relaxation=relaxations.get(name))
            for rank, (name, kinds) in enumerate(zip(ranking, names), start=1)
        ),
        file_bytes=files.sizes,
    )


def _result(chain: ChainInput, outcome: Outcome, *, seed: int) -> ChainResult:
    return chain_result(
        chain,
        outcome.timed.prediction,
        weights=outcome.weights,
        seed=seed,
        prepared=outcome.prepared,
    )


def _scores(
    outcome: Outcome,
    *,
    rank: int,
    files: dict[str, str],
    relaxation: Mapping[str, object] | None,
) -> ModelScores:
    return model_scores(
        outcome.weights.name,
        outcome.timed,
        rank=rank,
        planned_peak_bytes=outcome.plan.peak_bytes,
        files=files,
        relaxation=relaxation,
    )


def _write_files(
    files: ChainFiles, results: Sequence[ChainResult], options: ChainOptions
) -> tuple[str, ...]:
    """Write the files of all sets of weights under temporary names, and return warnings.

    results: best first.
    """
    warnings = [write_result(files, result, pae_json=options.pae_json) for result in results]
    if options.pictures:
        warnings.append(write_picture(files, results[0]))
    return _merged(*warnings)


def _relax(
    files: ChainFiles, results: Sequence[ChainResult], options: ChainOptions
) -> tuple[dict[str, Mapping[str, object]], list[str]]:
    """Relax the results that are requested. results: best first."""
    count = {"none": 0, "best": 1, "all": len(results)}[options.relax]
    return relax_results(files, results[:count], device=options.device)


def _merged(*texts: Iterable[str]) -> tuple[str, ...]:
    """Return all texts in their order, each once."""
    return tuple(dict.fromkeys(text for group in texts for text in group))
