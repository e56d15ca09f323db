"""Output directories of runs with two phases, written by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import EvaluationReport, PhaseReport, RunInfo, StepReport
from tests.support.synthetic_samples import tiny_config

PHASES = (
    {
        "name": "first",
        "steps": 40,
        "end_lddt_ca": None,
        "required_lddt_ca": 0.6,
        "required_by_step": None,
    },
    {
        "name": "second",
        "steps": 60,
        "end_lddt_ca": 0.9,
        "required_lddt_ca": None,
        "required_by_step": None,
    },
)
BATCHES = (2, 4)


def step_report(step: int) -> StepReport:
    """Return a step of the run; the loss falls, and the second phase takes 0.5 s per step."""
    in_first = min(step, PHASES[0]["steps"])
    return StepReport(
        step=step,
        samples_seen=BATCHES[0] * in_first + BATCHES[1] * (step - in_first),
        num_recycling_iterations=step % 4,
        loss=20.0 * math.exp(-step / 20) + 1.0,
        terms={"fape": 1.0 / step, "distogram": 2.0 / step},
        gradient_norm=0.5,
        learning_rate=1e-3,
        step_time_seconds=0.25 if step <= PHASES[0]["steps"] else 0.5,
        data_wait_seconds=0.01,
        queue_depth=2,
        reorder_distance=0,
    )


def evaluation_report(step: int) -> EvaluationReport:
    """Return an evaluation of two chains, whose mean is step / 100."""
    chains = tuple(
        ChainScore(chain_id=name, lddt_ca=step / 100 + delta, num_residues=30)
        for name, delta in (("1abc_A", -0.01), ("2abc_B", 0.01))
    )
    return EvaluationReport(
        step=step,
        samples_at_end=step_report(step).samples_seen,
        lddt_ca=step / 100,
        chains=chains,
        seconds=2.0,
    )


def phase_key(number: int) -> dict[str, object]:
    """Return the key "phase" of config*.json."""
    before = sum(phase["steps"] for phase in PHASES[: number - 1])
    return {
        "name": PHASES[number - 1]["name"],
        "number": number,
        "count": len(PHASES),
        "steps_before": before,
        "last_step": before + PHASES[number - 1]["steps"],
    }


def run_info(*, phase: int = 1, resumed_from_step: int = 0) -> RunInfo:
    """Return the facts of a run on a CPU in a phase."""
    return RunInfo(
        config=dataclasses.replace(tiny_config(), log_every_steps=10),
        seed=1,
        number_of_ranks=1,
        number_of_nodes=1,
        ranks_per_node=1,
        device="cpu",
        global_batch_size=BATCHES[phase - 1],
        num_parameters=10,
        num_tensors=2,
        init_checkpoint_sha256=None,
        resumed_from_step=resumed_from_step,
    )


def phase_report(number: int) -> PhaseReport:
    """Return the event of a phase."""
    return PhaseReport(
        **phase_key(number), best_lddt_ca=None, required_lddt_ca=None, info=run_info(phase=number)
    )


def write_config(folder: Path, number: int, *, name: str = "config.json") -> None:
    """Write the configuration of a phase, with a later time than those before."""
    config = {
        "max_steps": 100,
        "evaluation": {"every_steps": 20, "target_lddt_ca": 0.9},
        "parallel": {"num_evaluation_ranks": 0},
        "phases": list(PHASES),
    }
    content = {"number_of_ranks": 2 * number, "config": config, "phase": phase_key(number)}
    (folder / name).write_text(json.dumps(content))
    os.utime(folder / name, (number, number))


def write_state(folder: Path, status: str, **changes: object) -> None:
    """Write run.json."""
    content = {
        "status": status,
        "seed": 1,
        "identity": {},
        "resumable": True,
        "command": "python -m benchmark run --preset two --phase first --output-dir /runs/two",
    }
    (folder / "run.json").write_text(json.dumps(content | changes))


def write_reports(folder: Path, last_step: int, *, every: int = 20) -> None:
    """Write steps.jsonl and evaluations.jsonl up to a step."""
    steps = [dataclasses.asdict(step_report(step)) for step in range(1, last_step + 1)]
    evaluations = []
    for step in range(every, last_step + 1, every):
        content = dataclasses.asdict(evaluation_report(step))
        content["epoch_num"] = content.pop("samples_at_end")
        evaluations.append(content)
    for name, lines in (("steps", steps), ("evaluations", evaluations)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
