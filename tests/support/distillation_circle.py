"""The circle predict -> distill -> train on synthetic chains, with the score with and without.

    python -m tests.support.distillation_circle OUT [--steps N] [--seed S] [--record FILE]

Synthetic families are held back from training and from validation. A run without a distillation
set trains a model, the model predicts the chains that were held back, `data_prep distill` makes
shards of the predictions, and a second run of the same preset, seed and number of steps draws a
part of its samples from them. A second call continues where the first one ended.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.machine import describe_machine, describe_versions
from benchmark.run.summary import read_evaluations
from data_prep.parsers.alignment_blocks import read_first_row
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.reader import ShardReader
from tests.support.prediction_inputs import write_fasta

DISTILLATION_PROBABILITY = 0.75
"""OpenFold's distillation_prob."""
FILTERS = ("--min-length", "0", "--max-length", "0", "--min-msa-rows", "0")
"""Synthetic chains have 24 to 36 residues and 8 to 48 rows."""


@dataclass(frozen=True, kw_only=True)
class Circle:
    """Sizes of the circle, and its folder."""

    out: Path
    preset: str = "demo_one_phase"
    num_chains: int = 420
    num_held_back: int = 20
    steps: int = 1200
    seed: int = 1
    min_plddt: float = 50.0
    settings: tuple[str, ...] = ()
    """Further FIELD=VALUE of both runs."""

    @property
    def alignments(self) -> Path:
        return self.out / "raw" / "open_protein_set"

    @property
    def held_back(self) -> Path:
        """Entries of the chains that are held back, whose structures are the truth."""
        return self.out / "held_back"

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    @property
    def distilled(self) -> Path:
        return self.out / "distilled"

    @property
    def predictions(self) -> Path:
        return self.out / "predictions"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Circle.steps)
    parser.add_argument("--seed", type=int, default=Circle.seed)
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    result = run_circle(Circle(out=args.out, steps=args.steps, seed=args.seed))
    (args.out / "circle.json").write_text(json.dumps(result, indent=1) + "\n")
    print(describe(result))
    if args.record is not None:
        args.record.write_text(record_text(result))
    return 0


def run_circle(circle: Circle) -> dict[str, object]:
    """Run the circle and return its result."""
    make_data(circle)
    train(circle, "without")
    predict(circle)
    command = ["data_prep", "distill", "--predictions", circle.predictions]
    command += ["--alignments", circle.alignments, *FILTERS, "--min-plddt", circle.min_plddt]
    call(*command, "--out", circle.distilled)
    options = ("--distillation-data-dir", str(circle.distilled))
    setting = f"selection.distillation_probability={DISTILLATION_PROBABILITY}"
    train(circle, "with", settings=(setting,), options=options)
    return result_of(circle)


def result_of(circle: Circle) -> dict[str, object]:
    """Return the result of a circle, with the scores of the evaluations that both runs have."""
    scores = {
        name: {report.step: report for report in read_evaluations(circle.out / name)}
        for name in ("without", "with")
    }
    steps = sorted(scores["without"].keys() & scores["with"].keys())
    summary = json.loads((circle.predictions / "summary.json").read_text())
    truth = json.loads((circle.predictions / "scores.json").read_text())
    return {
        "measurement": "distillation circle",
        "preset": circle.preset,
        "steps": steps[-1],
        "planned_steps": circle.steps,
        "commit": json.loads((circle.out / "with" / "config.json").read_text())["versions"][
            "commit"
        ],
        "seed": circle.seed,
        "distillation_probability": DISTILLATION_PROBABILITY,
        "num_predicted": summary["num_finished"],
        "mean_plddt_of_predictions": statistics.mean(
            chain["models"][0]["mean_plddt"] for chain in summary["chains"]
        ),
        "lddt_ca_of_predictions": mean_truth(truth),
        **count_residues(circle.distilled),
        "num_chains_of_data_set": len(ShardIndex.load(circle.shards).chains),
        "num_validation_chains": len(scores["with"][steps[-1]].chains),
        "validation_lddt_ca": {name: by[steps[-1]].lddt_ca for name, by in scores.items()},
        "curve": [
            {"step": step} | {name: by[step].lddt_ca for name, by in scores.items()}
            for step in steps
        ],
    }


def describe(result: dict[str, object]) -> str:
    """Return the result in several lines."""
    scores = result["validation_lddt_ca"]
    return "\n".join(
        [
            f"{result['num_distilled']} of {result['num_predicted']} predicted chains distilled: "
            f"mean pLDDT {result['mean_plddt_of_predictions']:.1f}, "
            f"true lDDT-Ca {result['lddt_ca_of_predictions']:.4f}; "
            f"{result['num_confident_residues']} of {result['num_residues']} residues confident",
            f"validation lDDT-Ca after {result['steps']} steps, seed {result['seed']}: "
            f"{scores['without']:.4f} without the distillation set, {scores['with']:.4f} with "
            f"{result['distillation_probability']:.0%} of the samples from it",
        ]
    )


def record_text(result: dict[str, object]) -> str:
    """Return the result with its curve, and the machine and versions that gave it."""
    versions, machine = describe_versions(), describe_machine()
    lines = [
        f"make distill-circle STEPS={result['planned_steps']} SEED={result['seed']}",
        f"{datetime.datetime.now(datetime.UTC).date()}, {machine['processor']}, "
        f"{machine['cpu_count']} cores, torch {versions['torch']}, commit {result['commit']}",
        describe(result),
        f"{result['num_validation_chains']} validation chains, lDDT-Ca by step:",
        "step without with",
    ]
    curve = [f"{row['step']} {row['without']:.4f} {row['with']:.4f}" for row in result["curve"]]
    return "\n".join([*lines, *curve]) + "\n"


def count_residues(distilled: Path) -> dict[str, int]:
    """Return the numbers of distilled chains, of their residues, and of those not masked."""
    reader = ShardReader(distilled)
    masks = [reader.structure(c.chain_id).all_atom_mask.any(1) for c in reader.index.chains]
    return {
        "num_distilled": len(masks),
        "num_residues": sum(map(len, masks)),
        "num_confident_residues": int(sum(mask.sum() for mask in masks)),
    }


def mean_truth(scores: dict) -> float:
    """Return the mean lDDT-Ca of all predictions against the true structures."""
    return statistics.mean(chain["lddt_ca"] for chain in scores["chains"].values())


def make_data(circle: Circle) -> None:
    """Make the data sets and the FASTA file of the chains that are held back."""
    if (circle.shards / "index.h5").is_file():
        return
    raw = circle.out / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    shutil.rmtree(circle.held_back, ignore_errors=True)
    call("data_prep", "synthesize", "--out", raw, "--chains", circle.num_chains)
    # Families are in the order of their ids, and the first ones are for validation.
    entries = sorted((raw / "pdb_mmcif" / "raw").rglob("*.cif.gz"), key=lambda path: path.name)
    circle.held_back.mkdir()
    sequences = {}
    for path in entries[-circle.num_held_back :]:
        path.rename(circle.held_back / path.name)
        chain_id = f"{path.name.removesuffix('.cif.gz')}_A"
        (rows,) = (circle.alignments / "pdb" / chain_id / "a3m").iterdir()
        sequences[chain_id] = read_first_row(rows).query
    write_fasta(circle.out / "held_back.fasta", sequences)
    inputs = ["--pdb-mmcif", raw / "pdb_mmcif", "--open-protein-set", circle.alignments]
    call("data_prep", "convert", *inputs, "--out", circle.shards)


def train(
    circle: Circle, name: str, *, settings: Sequence[str] = (), options: Sequence[str] = ()
) -> None:
    """Train the preset for the number of steps, unless the run is finished."""
    out = circle.out / name
    if is_finished(out):
        return
    # The target is out of reach, so that both runs have the same number of steps.
    common = (f"max_steps={circle.steps}", "evaluation.target_lddt_ca=1.0", *circle.settings)
    sets = [word for setting in (*common, *settings) for word in ("--set", setting)]
    command = ["benchmark", "run", "--preset", circle.preset, *sets, *options]
    command += ["--data-dir", circle.shards, "--output-dir", out, "--seed", circle.seed]
    # The exit code is 1, because the target is not reached.
    call(*command, accepted=(0, 1))
    if not is_finished(out):
        raise RuntimeError(f"the run in {out} has not finished")


def is_finished(run_dir: Path) -> bool:
    state = run_dir / "run.json"
    return state.is_file() and json.loads(state.read_text())["status"] == "finished"


def predict(circle: Circle) -> None:
    """Predict the chains that were held back, and compare them with the true structures."""
    command = ["openfold_opt.predict", circle.out / "held_back.fasta"]
    command += ["--alignments", circle.alignments, "--weights", circle.out / "without"]
    command += ["--out", circle.predictions, "--truth", circle.held_back, "--device", "cpu"]
    call(*command, "--no-report", "--no-pictures")


def call(*words: object, accepted: Sequence[int] = (0,)) -> None:
    """Run `python -m WORDS`. Raise RuntimeError for another exit code than the accepted ones."""
    command = [sys.executable, "-m", *map(str, words)]
    print(f"$ {shlex.join(['python', *command[1:]])}", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code not in accepted:
        raise RuntimeError(f"exit code {code} of {shlex.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
