"""Check the confidences of a run with phases on fresh chains, and what its last phase changed.

    python -m tests.train.confidence_of_run RUN_DIR --data-dir SHARDS [--out FILE]

Four checkpoints predict every chain of SHARDS as an evaluation does: the start of the phase before
the last one, and the start, the middle and the end of the last phase. The exit code is 1

- if the mean pLDDT does not correlate with lDDT-Ca over the chains of the first and the last of the
  four (r at most 0.5),
- if the pTM does not correlate with the TM-score over the chains of the start and the end of the
  last phase, because the TM-score head is trained in the last two phases,
- if the last phase lowered lDDT-Ca, or did not halve the violation loss.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.code_revision import describe_commit
from benchmark.machine import CHECKOUT
from benchmark.run.settings import read_config
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.loader import EvaluationLoader
from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.losses.violation import violation_loss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.published_weights import build_model, read_weights
from openfold_opt.predict.comparison.superposition_search import search_superpositions
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.build_run import CHECKPOINT_FOLDER, build_evaluation_plan
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore
from openfold_opt.train.config import RunConfig
from openfold_opt.train.evaluation.evaluator import CA, lddt_ca
from openfold_opt.train.phases import phases_of

MIN_CORRELATION = 0.5
MAX_VIOLATION_RATIO = 0.5
"""Violation loss after the last phase, relative to the loss before it."""
ALLOWED_LOSS_OF_LDDT = 0.0
MIDDLE, LAST_START, LAST_MIDDLE, END = (
    "start of the phase before",
    "start of the last phase",
    "middle of the last phase",
    "end of the run",
)


@dataclass(frozen=True, kw_only=True)
class ChainConfidence:
    """True and predicted scores of a chain."""

    lddt_ca: float
    """0 to 1."""
    mean_plddt: float
    """0 to 100."""
    tm_score: float
    ptm: float
    violation: float
    """Violation loss."""


def chosen_steps(run_dir: Path, config: RunConfig) -> dict[str, int]:
    """Return the steps of the checkpoints by their role."""
    records = CheckpointStore(run_dir / CHECKPOINT_FOLDER, config.checkpoint).records()
    phases = [record.content["facts"]["phase"] for record in records if record.content]
    starts = {phase["index"]: phase["steps_before"] for phase in phases}
    last = len(phases_of(config)) - 1
    steps = [record.step for record in records]
    boundaries = {starts.get(last - 1), starts.get(last)}
    if not steps or not boundaries <= set(steps):
        raise SystemExit(
            f"{run_dir} has the checkpoints {steps} and phases {sorted(starts)}; expected a "
            "finished run with phases that kept the checkpoint of the end of each phase"
        )
    middle = (starts[last] + steps[-1]) / 2
    inside = [step for step in steps if starts[last] < step < steps[-1]]
    return {
        MIDDLE: starts[last - 1],
        LAST_START: starts[last],
        LAST_MIDDLE: min(inside or steps[-1:], key=lambda step: abs(step - middle)),
        END: steps[-1],
    }


@torch.no_grad()
def predict(model: AlphaFold, batch: FeatureBatch, plan: ExecutionPlan) -> ChainConfidence:
    """Predict a chain, given as a batch of one."""
    outputs = model(batch, plan, num_recycling_iterations=batch.num_passes - 1, dropout=None)
    predicted, true = outputs.final_atom_positions, batch.all_atom_positions
    resolved = batch.all_atom_mask[0, :, CA] > 0
    search = search_superpositions(
        predicted[0, resolved, CA].numpy(),
        true[0, resolved, CA].numpy(),
        num_true=int(resolved.sum()),
    )
    violation = violation_loss(
        outputs, batch.at_pass(batch.num_passes - 1), ViolationLossConfig(weight=1.0)
    )
    return ChainConfidence(
        lddt_ca=float(lddt_ca(predicted, true, batch.all_atom_mask)[0]),
        mean_plddt=float(outputs.plddt[0].mean()),
        tm_score=search.tm_score,
        ptm=float(outputs.predicted_tm_score[0]),
        violation=float(violation[0]),
    )


def measure(
    run_dir: Path, data_dir: Path, config: RunConfig, steps: Mapping[str, int]
) -> dict[str, list[ChainConfidence]]:
    """Return the scores of all chains of a data set by the role of the checkpoint."""
    plan = build_evaluation_plan(config, torch.device("cpu"))
    models = {
        role: build_model(read_weights(run_dir, checkpoint=str(step)))
        for role, step in steps.items()
    }
    chain_ids = [chain.chain_id for chain in ShardIndex.load(data_dir).chains]
    scores: dict[str, list[ChainConfidence]] = {role: [] for role in steps}
    for chain in EvaluationLoader(data_dir, chain_ids, data=config.data, loader=config.loader):
        batch = FeatureBatch.from_features(decode_batch(chain.features))
        for role, model in models.items():
            scores[role].append(predict(model, batch, plan))
    return scores


def correlation(chains: Sequence[ChainConfidence], predicted: str, true: str) -> float:
    """Return Pearson's r of two fields; NaN if one of them is constant."""
    values = np.array([[getattr(chain, name) for name in (predicted, true)] for chain in chains])
    if np.any(values.std(axis=0) < 1e-9):
        return float("nan")
    return float(np.corrcoef(values.T)[0, 1])


def report(scores: Mapping[str, list[ChainConfidence]], steps: Mapping[str, int]) -> list[str]:
    """Print the scores and their correlations. Return the bars that are not reached."""
    means = {
        role: {name: np.mean([getattr(c, name) for c in chains]) for name in asdict(chains[0])}
        for role, chains in scores.items()
    }
    print(f"{len(scores[END])} chains; means, and correlations within a checkpoint")
    print(f"{'checkpoint':<26}{'step':>6} lDDT-Ca  pLDDT     r  TM-score   pTM     r  violation")
    for role, mean in means.items():
        within = [
            correlation(scores[role], *names)
            for names in (("mean_plddt", "lddt_ca"), ("ptm", "tm_score"))
        ]
        print(
            f"{role:<26}{steps[role]:>6}  {mean['lddt_ca']:.4f}  {mean['mean_plddt']:5.1f} "
            f"{within[0]:5.2f}    {mean['tm_score']:.4f} {mean['ptm']:.3f} {within[1]:5.2f}"
            f"     {mean['violation']:.4f}"
        )
    pooled = {
        "pLDDT with lDDT-Ca": correlation(scores[MIDDLE] + scores[END], "mean_plddt", "lddt_ca"),
        "pTM with TM-score": correlation(scores[LAST_START] + scores[END], "ptm", "tm_score"),
    }
    before, after = means[LAST_START], means[END]
    gain = after["lddt_ca"] - before["lddt_ca"]
    ratio = after["violation"] / before["violation"]
    failed = []
    for name, r in pooled.items():
        print(f"r of {name}, two checkpoints pooled: {r:.3f}, expected above {MIN_CORRELATION}")
        failed += [] if r > MIN_CORRELATION else [name]
    print(f"last phase: lDDT-Ca {gain:+.4f}, expected at least -{ALLOWED_LOSS_OF_LDDT}")
    print(f"last phase: violation loss x {ratio:.3f}, expected at most {MAX_VIOLATION_RATIO}")
    failed += [] if gain >= -ALLOWED_LOSS_OF_LDDT else ["lDDT-Ca"]
    return failed + ([] if ratio <= MAX_VIOLATION_RATIO else ["violation loss"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the confidences of a run with phases.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="JSON file of the scores of all chains")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = read_config(args.run_dir)
    steps = chosen_steps(args.run_dir, config)
    scores = measure(args.run_dir, args.data_dir, config, steps)
    failed = report(scores, steps)
    if args.out is not None:
        record = {
            "commit": describe_commit(CHECKOUT),
            "steps": steps,
            "chains": {role: [asdict(chain) for chain in scores[role]] for role in scores},
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    print("FAILED: " + ", ".join(failed) if failed else "all bars are reached")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
