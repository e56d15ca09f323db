"""`predict-validation`: predict a validation chain of a run with the weights that it trained.

It calls the command of openfold_opt.predict with the settings of the evaluation, so that lDDT-Ca of
the written structure is that of the evaluation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.command_line import BenchmarkError, add_data_dir_option, describe_error
from benchmark.run.summary import EVALUATIONS_FILE, read_evaluations
from openfold_opt.predict.__main__ import main as predict
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.shard_format import ShardError
from openfold_opt.protein.templates import latest_template_date

PREDICTION_FOLDER = "prediction"
"""Default output directory, in that of the run."""
EVALUATION_SEED = 0
"""Seed of a prediction that draws what the evaluation draws (loader/random_streams.py)."""


def add_parser(subparsers) -> None:
    """Declare the command line of `predict-validation`."""
    parser = subparsers.add_parser(
        "predict-validation",
        help="predict a validation chain of a run: structure, picture and report",
        description="Predict a validation chain with the newest weights of a run, with the seed, "
        "templates and recycling iterations of its evaluation, and compare the structure with the "
        "true one. With --chain, the chain may be one that the run trained on; a line says so. "
        "Exit code: that of the prediction (0 success, 1 failed).",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="output directory of a run")
    add_data_dir_option(parser)
    parser.add_argument(
        "--chain",
        metavar="ID",
        help="a chain of the data set (default: the validation chain with the median lDDT-Ca)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"output directory (default: RUN_DIR/{PREDICTION_FOLDER})",
    )


def run(args: argparse.Namespace) -> int:
    """Predict the chain, and return the exit code of the prediction."""
    chain_id = args.chain or median_chain(args.run_dir)
    if chain_id not in _evaluated_chains(args.run_dir):
        print(f"{chain_id} is no validation chain of this run, which may have trained on it")
    try:
        entry = ShardIndex.load(args.data_dir).by_id.get(chain_id)
    except (ShardError, OSError) as error:
        raise BenchmarkError(describe_error(error)) from error
    if entry is None:
        raise BenchmarkError(
            f"{args.data_dir} has no chain {chain_id}; name the data set of the run, or another "
            "--chain"
        )
    out = args.out or args.run_dir / PREDICTION_FOLDER
    return predict(
        [
            *("--data-dir", str(args.data_dir), "--chains", chain_id),
            *("--truth", str(args.data_dir)),
            *("--weights", str(args.run_dir), "--out", str(out)),
            *("--max-template-date", latest_template_date(entry.release_date)),
            *("--seed", str(EVALUATION_SEED)),
        ]
    )


def median_chain(run_dir: Path) -> str:
    """Return the chain with the median lDDT-Ca of the last evaluation of a run.

    Of an even number of chains it is the lower one of the middle two.

    Raises:
        BenchmarkError: the run has no evaluation.
    """
    chains = _evaluated_chains(run_dir)
    if not chains:
        raise BenchmarkError(
            f"{run_dir / EVALUATIONS_FILE} is empty or does not exist; expected a run that "
            "evaluated at least once, or --chain ID"
        )
    ranking = sorted(chains, key=lambda chain_id: (chains[chain_id], chain_id))
    return ranking[(len(ranking) - 1) // 2]


def _evaluated_chains(run_dir: Path) -> dict[str, float]:
    """Return lDDT-Ca by chain of the last evaluation of a run; empty without an evaluation."""
    evaluations = read_evaluations(run_dir)
    return (
        {chain.chain_id: chain.lddt_ca for chain in evaluations[-1].chains} if evaluations else {}
    )
