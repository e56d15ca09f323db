"""`controls`: check that a finished run learned from its inputs.

It scores the model of the run on shuffled inputs, and the best constant structure: one structure
that is the prediction for every chain, cut to its length.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.replace_file import replace_text
from benchmark.run.settings import read_config
from benchmark.run.state_file import STATE_FILE, read_state
from benchmark.run.summary import EVALUATIONS_FILE, read_evaluations
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.loader import EvaluationLoader
from openfold_opt.losses.lddt import lddt
from openfold_opt.protein.features import FEATURES
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.residue_constants import atom_order
from openfold_opt.train.build_run import CHECKPOINT_FOLDER, build_evaluation_plan, build_model
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore
from openfold_opt.train.config import RunConfig
from openfold_opt.train.dataset_split import select_training, select_validation
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.evaluation.evaluator import Evaluator

MAX_SHUFFLED_SCORE = 0.55
"""A model that uses its inputs has an lDDT-Ca below this if they are shuffled."""
MAX_CONSTANT_SCORE = 0.5
"""On suitable data, every constant structure has an lDDT-Ca below this."""
REPRODUCTION_TOLERANCE = 1e-4
"""Allowed difference from the logged lDDT-Ca: the number of threads changes the order of sums."""
HELIX_RISE_ANGSTROM, HELIX_RADIUS_ANGSTROM, HELIX_TURN_DEGREES = 1.5, 2.3, 100.0
"""Of the CA atoms of an alpha helix; rise and turn are per residue."""
STRAND_RISE_ANGSTROM, STRAND_OFFSET_ANGSTROM = 3.3, 0.9
"""Of the CA atoms of a beta strand: rise per residue, and offset of every second residue."""
_TRUTH = ("all_atom_positions", "all_atom_mask")
"""Features of the true structure, which are not inputs of the model."""


def add_parser(subparsers) -> None:
    """Declare the command line of `controls`."""
    parser = subparsers.add_parser(
        "controls",
        help="score the model of a finished run on shuffled inputs",
        description="Evaluate the averaged weights of a finished run on its validation chains, "
        "unchanged and with sequence, MSA and templates shuffled, and compare with the best "
        f"constant structure. Exit code: 0 if shuffled inputs score below {MAX_SHUFFLED_SCORE}, "
        f"the best constant structure below {MAX_CONSTANT_SCORE}, and the logged score is "
        "reproduced; 1 if not.",
    )
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="output directory of a finished run"
    )
    parser.add_argument(
        "--data-dir", required=True, type=Path, metavar="D", help="data set of the run"
    )


def run(args: argparse.Namespace) -> int:
    """Print three scores and write controls.json. Return the exit code."""
    try:
        metrics = measure(args.run_dir, args.data_dir)
    except (ValueError, OSError) as error:
        raise BenchmarkError(describe_error(error)) from error
    results = {
        "as they are": abs(metrics["as they are"] - metrics["logged"]) <= REPRODUCTION_TOLERANCE,
        "shuffled": metrics["shuffled"] < MAX_SHUFFLED_SCORE,
        "best constant structure": metrics["best constant structure"] < MAX_CONSTANT_SCORE,
    }
    expected = {
        "as they are": f"logged {metrics['logged']:.4f}",
        "shuffled": f"below {MAX_SHUFFLED_SCORE}",
        "best constant structure": f"below {MAX_CONSTANT_SCORE}",
    }
    for name, passed in results.items():
        print(
            f"{name:<26} lDDT-Ca {metrics[name]:.4f}   expected: {expected[name]:<16} "
            f"{'ok' if passed else 'FAILED'}"
        )
    replace_text(args.run_dir / "controls.json", json.dumps(metrics, indent=1) + "\n")
    return 0 if all(results.values()) else 1


def measure(output_dir: Path, data_dir: Path) -> dict[str, float]:
    """Return the mean lDDT-Ca over the validation chains by name of the measurement.

    Names: "logged" by the run, "as they are" for unchanged inputs, "shuffled" for shuffled inputs,
    and "best constant structure".
    """
    config, logged = _read_run(output_dir, data_dir)
    evaluator = _load_evaluator(output_dir, config)
    index = ShardIndex.load(data_dir)
    validation = select_validation(index, config.selection)
    as_they_are, shuffled = [], []
    for chain in EvaluationLoader(data_dir, validation, data=config.data, loader=config.loader):
        features = decode_batch(chain.features)
        as_they_are.append(evaluator.score(features))
        shuffled.append(
            evaluator.score(
                shuffle_residues(features, seed=zlib.crc32(chain.chain_ids[0].encode()))
            )
        )
    return {
        "logged": logged,
        "as they are": float(np.mean(as_they_are)),
        "shuffled": float(np.mean(shuffled)),
        "best constant structure": best_constant(ShardReader(data_dir), config, validation),
    }


def _read_run(output_dir: Path, data_dir: Path) -> tuple[RunConfig, float]:
    """Return the configuration of the run, and lDDT-Ca of its last evaluation."""
    config = read_config(output_dir, data_dir=data_dir)
    state = read_state(output_dir)
    if state is None:
        raise BenchmarkError(
            f"{output_dir} has no {STATE_FILE}; expected the output directory of a run"
        )
    if state.status != "finished":
        raise BenchmarkError(
            f"the run in {output_dir} is not finished ({state.status}); start the same command "
            "again to finish it"
        )
    evaluations = read_evaluations(output_dir)
    if not evaluations:
        raise BenchmarkError(
            f"{output_dir / EVALUATIONS_FILE} is empty or does not exist; expected a run that "
            "evaluated at least once"
        )
    return config, evaluations[-1].lddt_ca


def _load_evaluator(output_dir: Path, config: RunConfig) -> Evaluator:
    store = CheckpointStore(output_dir / CHECKPOINT_FOLDER, config.checkpoint)
    found = store.load_newest(warn=lambda message: print(f"warning: {message}"))
    if found is None:
        raise CheckpointError(f"{store.folder} has no checkpoint; expected that of a finished run")
    torch.set_num_threads(config.torch_threads or torch.get_num_threads())
    device = torch.device("cpu")
    model = build_model(config, seed=0, device=device)
    return Evaluator(
        model, found.snapshot.views("average"), plan=build_evaluation_plan(config, device)
    )


def shuffle_residues(features: Mapping[str, Tensor], *, seed: int) -> dict[str, Tensor]:
    """Permute the residues of all inputs except residue_index by one permutation.

    Sequence, MSA and templates still agree with each other, but no longer with the true structure,
    which keeps its order.

    Args:
        features: features of a batch by name.
        seed: seed of the permutation.
    """
    num_residues = features["aatype"].shape[-1]
    permutation = torch.from_numpy(np.random.default_rng(seed).permutation(num_residues))
    shuffled = {}
    for name, value in features.items():
        spec = FEATURES[name]
        if "N_res" in spec.shape and name not in (*_TRUTH, "residue_index"):
            dim = len(spec.leading_dims(batched=True)) + spec.shape.index("N_res")
            value = value.index_select(dim, permutation)
        shuffled[name] = value
    return shuffled


def best_constant(reader: ShardReader, config: RunConfig, validation: list[str]) -> float:
    """Return the mean lDDT-Ca (0 to 1) of the best constant structure.

    The candidates are an ideal helix, an ideal strand, and the training chains that are at least as
    long as the longest validation chain.
    """
    truths = [_ca_atoms(reader, chain_id) for chain_id in validation]
    longest = max(len(positions) for positions, _ in truths)
    chain_ids = [chain.chain_id for chain in select_training(reader.index, config.selection)]
    candidates = [ideal_helix(longest), ideal_strand(longest)]
    for chain_id in chain_ids:
        positions, mask = _ca_atoms(reader, chain_id)
        if len(positions) >= longest and bool(mask[:longest].all()):
            candidates.append(positions)
    scores = [
        np.mean(
            [
                float(lddt(candidate[: len(mask)], truth, mask, per_residue=False))
                for truth, mask in truths
            ]
        )
        for candidate in candidates
    ]
    return float(max(scores))


def _ca_atoms(reader: ShardReader, chain_id: str) -> tuple[Tensor, Tensor]:
    """Return CA positions [N_res, 3] in angstrom, and their mask [N_res]."""
    structure, ca = reader.structure(chain_id), atom_order["CA"]
    return torch.tensor(structure.all_atom_positions[:, ca]), torch.tensor(
        structure.all_atom_mask[:, ca]
    ).float()


def ideal_helix(length: int) -> Tensor:
    """Return the CA positions [length, 3] of an alpha helix, in angstrom."""
    residue = torch.arange(length, dtype=torch.float32)
    angle = torch.deg2rad(HELIX_TURN_DEGREES * residue)
    radius = HELIX_RADIUS_ANGSTROM
    return torch.stack(
        [radius * angle.cos(), radius * angle.sin(), HELIX_RISE_ANGSTROM * residue], dim=-1
    )


def ideal_strand(length: int) -> Tensor:
    """Return the CA positions [length, 3] of a beta strand, in angstrom."""
    residue = torch.arange(length, dtype=torch.float32)
    along, across = STRAND_RISE_ANGSTROM * residue, STRAND_OFFSET_ANGSTROM * (residue % 2)
    return torch.stack([along, across, torch.zeros(length)], dim=-1)
