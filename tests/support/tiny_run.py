"""The tiny run as a program: python -m tests.support.tiny_run OUTPUT_DIR MAX_STEPS [JSON].

The JSON has fields of RunConfig, under the names in NESTED fields of these, and under "phases" a
list with fields of PhaseConfig, where "data" has fields that differ from those of the run. "phase"
is the only phase to train. "data_dir" names shards; without it, samples are made in memory.
"step_seconds" and "evaluation_seconds" add a delay to each step and to the evaluation of each
chain. Every rank prints the samples of every step. SIGUSR1 requests a stop.
"""

import dataclasses
import json
import signal
import sys
import time
from pathlib import Path

import torch

from openfold_opt.parallel.launch import read_launch_info
from openfold_opt.parallel.process_exit import run_program
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import ShardData, ShardDataSource
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.observer import (
    EvaluationReport,
    NullObserver,
    PhaseReport,
    RunSummary,
    StepReport,
)
from openfold_opt.train.phase_config import PhaseConfig
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.trainer import Trainer
from openfold_opt.train.training_interval import TrainingInterval
from tests.support.synthetic_samples import MemoryData, MemorySource, tiny_config

PREEMPTED_EXIT_CODE = 75
NESTED = ("parallel", "evaluation", "checkpoint", "loader", "data", "selection")
"""Fields of RunConfig that are dataclasses."""


def show(text: str) -> None:
    """Write a line in one piece, so that lines of other ranks do not mix with it.

    `print` writes the end of the line separately if the output has no buffer.
    """
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class LossPrinter(NullObserver):
    """Prints a line per step with the exact loss, and one per evaluation with the exact scores."""

    def preparing(self, what: str) -> None:
        show(f"preparing {what}")

    def step(self, report: StepReport) -> None:
        show(f"step {report.step} loss {report.loss!r} seconds {report.step_time_seconds!r}")

    def phase_start(self, report: PhaseReport) -> None:
        show(f"phase_start {report.name} {report.steps_before} {report.last_step}")

    def phase_stop(self, report: PhaseReport) -> None:
        show(f"phase_stop {report.name} {report.last_step} {report.best_lddt_ca!r}")

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None:
        show(f"evaluation_start {step}")

    def evaluation(self, report: EvaluationReport) -> None:
        scores = " ".join(repr(chain.lddt_ca) for chain in report.chains)
        show(f"evaluation {report.step} {scores}")

    def warning(self, message: str) -> None:
        show(f"warning {message}")

    def run_stop(self, *, status: str, samples: int) -> None:
        show(f"run_stop {status} {samples}")

    def run_failed(self, error: BaseException) -> None:
        show(f"run_failed {type(error).__name__}: {error}")

    def run_end(self, summary: RunSummary) -> None:
        show(f"summary {summary.status} {summary.steps} waits {summary.num_evaluation_waits}")


def slow_down(owner: type, name: str, seconds: float) -> None:
    """Add a delay to every call of a method."""
    original = getattr(owner, name)

    def slower(self, *args, **kwargs):
        time.sleep(seconds)
        return original(self, *args, **kwargs)

    setattr(owner, name, slower)


def print_samples(source: type) -> None:
    """Print step, chains and seeds of each batch that a step has used."""
    mark_consumed = source.mark_consumed

    def mark_and_print(self, batch) -> None:
        mark_consumed(self, batch)
        for chain_id, seed in zip(batch.chain_ids, batch.sample_seeds, strict=True):
            show(f"sample {batch.step} {chain_id} {seed}")

    source.mark_consumed = mark_and_print


def build_config(max_steps: int, changes: dict) -> RunConfig:
    """Return the tiny configuration with changes."""
    nested = {name: changes.pop(name, {}) for name in NESTED}
    phases = changes.pop("phases", [])
    config = tiny_config(max_steps=max_steps, **changes)
    config = dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **fields)
            for name, fields in nested.items()
        },
    )
    for phase in phases:
        if "data" in phase:
            phase["data"] = dataclasses.replace(config.data, **phase["data"])
    return dataclasses.replace(config, phases=tuple(PhaseConfig(**phase) for phase in phases))


def main() -> int:
    torch.set_num_threads(1)
    folder, max_steps = Path(sys.argv[1]), int(sys.argv[2])
    changes = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    slow_down(TrainingInterval, "_report", changes.pop("step_seconds", 0.0))
    slow_down(Evaluator, "score", changes.pop("evaluation_seconds", 0.0))
    phase, data_dir = changes.pop("phase", None), changes.pop("data_dir", None)
    config = build_config(max_steps, changes)
    print_samples(MemoryData if data_dir is None else ShardData)
    stop_request = StopRequest()
    signal.signal(signal.SIGUSR1, lambda *_: setattr(stop_request, "is_raised", True))
    try:
        Trainer(
            config,
            data=MemorySource() if data_dir is None else ShardDataSource(Path(data_dir)),
            paths=RunPaths(output_dir=folder),
            seed=3,
            observer=LossPrinter(),
            launch=read_launch_info(),
            stop_request=stop_request,
            phase=phase,
        ).run()
    except PreemptedError:
        return PREEMPTED_EXIT_CODE
    return 0


if __name__ == "__main__":
    run_program(main)
