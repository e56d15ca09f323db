"""The tiny run as a program: python -m tests.support.tiny_run OUTPUT_DIR MAX_STEPS [JSON].

The JSON has fields of RunConfig, and under "parallel", "evaluation" and "checkpoint" fields of
these. "step_seconds" and "evaluation_seconds" add a delay to each step and to the evaluation of
each chain. SIGUSR1 requests a stop.
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
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.observer import EvaluationReport, NullObserver, RunSummary, StepReport
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.trainer import Trainer
from openfold_opt.train.training_interval import TrainingInterval
from tests.support.synthetic_samples import MemorySource, tiny_config

PREEMPTED_EXIT_CODE = 75


class LossPrinter(NullObserver):
    """Prints a line per step with the exact loss, and one per evaluation with the exact scores."""

    def preparing(self, what: str) -> None:
        print(f"preparing {what}", flush=True)

    def step(self, report: StepReport) -> None:
        print(
            f"step {report.step} loss {report.loss!r} seconds {report.step_time_seconds!r}",
            flush=True,
        )

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None:
        print(f"evaluation_start {step}", flush=True)

    def evaluation(self, report: EvaluationReport) -> None:
        scores = " ".join(repr(chain.lddt_ca) for chain in report.chains)
        print(f"evaluation {report.step} {scores}", flush=True)

    def warning(self, message: str) -> None:
        print(f"warning {message}", flush=True)

    def run_stop(self, *, status: str, samples: int) -> None:
        print(f"run_stop {status} {samples}", flush=True)

    def run_failed(self, error: BaseException) -> None:
        print(f"run_failed {type(error).__name__}: {error}", flush=True)

    def run_end(self, summary: RunSummary) -> None:
        print(
            f"summary {summary.status} {summary.steps} waits {summary.num_evaluation_waits}",
            flush=True,
        )


def slow_down(owner: type, name: str, seconds: float) -> None:
    """Add a delay to every call of a method."""
    original = getattr(owner, name)

    def slower(self, *args, **kwargs):
        time.sleep(seconds)
        return original(self, *args, **kwargs)

    setattr(owner, name, slower)


def main() -> int:
    torch.set_num_threads(1)
    folder, max_steps = Path(sys.argv[1]), int(sys.argv[2])
    changes = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    slow_down(TrainingInterval, "_report", changes.pop("step_seconds", 0.0))
    slow_down(Evaluator, "score", changes.pop("evaluation_seconds", 0.0))
    nested = {name: changes.pop(name, {}) for name in ("parallel", "evaluation", "checkpoint")}
    config = tiny_config(max_steps=max_steps, **changes)
    config = dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **fields)
            for name, fields in nested.items()
        },
    )
    stop_request = StopRequest()
    signal.signal(signal.SIGUSR1, lambda *_: setattr(stop_request, "is_raised", True))
    try:
        Trainer(
            config,
            data=MemorySource(),
            paths=RunPaths(output_dir=folder),
            seed=3,
            observer=LossPrinter(),
            launch=read_launch_info(),
            stop_request=stop_request,
        ).run()
    except PreemptedError:
        return PREEMPTED_EXIT_CODE
    return 0


if __name__ == "__main__":
    run_program(main)
