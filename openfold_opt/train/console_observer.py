"""The observer that prints the progress of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from openfold_opt.train.dataset_split import name_chains
from openfold_opt.train.observer import (
    EvaluationReport,
    NullObserver,
    PhaseReport,
    RunInfo,
    RunSummary,
    StepReport,
)
from openfold_opt.train.preemption import PreemptedError
from openfold_opt.train.resolved import describe_resolved


def format_duration(seconds: float) -> str:
    """Format a duration in suitable units: "42 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


class ConsoleObserver(NullObserver):
    """Prints a line every log_every_steps steps, and for each evaluation and checkpoint."""

    def __init__(self, *, log_every_steps: int = 10, stream: TextIO | None = None) -> None:
        self._log_every_steps = log_every_steps
        self._stream = stream if stream is not None else sys.stdout
        self._max_steps: int | None = None
        """Last step of the run, or in a run with several phases, of the phase."""
        self._of_phase = ""
        self._first_step, self._first_time = 0, 0.0

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def preparing(self, what: str) -> None:
        self._print(what)

    def init_stop(self, info: RunInfo) -> None:
        start = (
            f"resumed after step {info.resumed_from_step}" if info.resumed_from_step else "fresh"
        )
        self._print(
            f"run of {info.number_of_ranks} ranks on {info.device}, "
            f"global batch {info.global_batch_size}, {info.num_parameters:,} parameters in "
            f"{info.num_tensors:,} tensors, seed {info.seed}, {start}"
        )
        self._print(_resolved(info))
        self._max_steps, self._first_step = info.config.max_steps, info.resumed_from_step

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None:
        self._first_time = time.monotonic()
        self._print(f"data: {train_samples:,} chains to train on, {eval_samples:,} to evaluate")
        if held_out:
            self._print(f"held out of training: {name_chains(held_out)}")

    def phase_start(self, report: PhaseReport) -> None:
        required = report.required_lddt_ca
        condition = "" if required is None else f", required lDDT-Ca {required}"
        self._print(
            f"phase {report.name} ({report.number} of {report.count}): steps "
            f"{report.steps_before + 1:,} to {report.last_step:,} at most{condition}"
        )
        if report.number > 1:
            self._print(_resolved(report.info))
        self._max_steps, self._of_phase = report.last_step, f" of phase {report.name}"
        self._first_step = max(report.steps_before, report.info.resumed_from_step)
        self._first_time = time.monotonic()

    def phase_stop(self, report: PhaseReport) -> None:
        best = "" if report.best_lddt_ca is None else f", best lDDT-Ca {report.best_lddt_ca:.4f}"
        self._print(f"phase {report.name} ended after step {report.last_step:,}{best}")

    def step(self, report: StepReport) -> None:
        if report.step % self._log_every_steps:
            return
        self._print(
            f"step {report.step:>6}{self._total()}  k {report.num_recycling_iterations}  "
            f"loss {report.loss:9.4f}  lr {report.learning_rate:.2e}  "
            f"grad norm {report.gradient_norm:9.4f}  {report.step_time_seconds:.3f} s/step  "
            f"data wait {report.data_wait_seconds:.3f} s"
            f"{self._time_left(report.step)}"
        )

    def _total(self) -> str:
        return "" if self._max_steps is None else f" of {self._max_steps:,}"

    def _time_left(self, step: int) -> str:
        """Return the time to the last step at the pace of this process, including evaluations."""
        num_done = step - self._first_step
        if self._max_steps is None or num_done < 1:
            return ""
        pace = (time.monotonic() - self._first_time) / num_done
        return f"  {format_duration(pace * (self._max_steps - step))} left{self._of_phase} at most"

    def evaluation(self, report: EvaluationReport) -> None:
        worst = min(report.chains, key=lambda chain: chain.lddt_ca)
        self._print(
            f"evaluation after step {report.step}: lDDT-Ca {report.lddt_ca:.4f} over "
            f"{len(report.chains)} chains (lowest {worst.lddt_ca:.4f}, {worst.chain_id}), "
            f"{report.seconds:.1f} s"
        )

    def checkpoint_saved(self, path: Path, *, step: int) -> None:
        self._print(f"checkpoint of step {step}: {path}")

    def warning(self, message: str) -> None:
        self._print(f"WARNING: {message}")

    def run_end(self, summary: RunSummary) -> None:
        text = f"{summary.outcome} after {summary.steps} steps, {summary.samples:,} samples"
        if summary.resumed_from_step:
            part = f"{summary.trained_steps} steps, {summary.trained_samples:,} samples"
            text += f"; this part: {part}"
        text += (
            f", {summary.run_seconds:.1f} s (training {summary.training_seconds:.1f}, "
            f"evaluation {summary.evaluation_seconds:.1f}, "
            f"data wait {summary.data_wait_seconds:.1f}); {summary.seconds_per_step:.3f} s/step, "
            f"{summary.samples_per_second:.2f} samples/s, "
            f"peak memory {summary.peak_memory_bytes / 2**30:.2f} GiB"
        )
        if summary.num_eager_steps is not None:
            text += f"; {summary.num_eager_steps} steps ran without a CUDA graph"
        if summary.num_evaluation_waits is not None:
            text += f"; training waited {summary.num_evaluation_waits} times for evaluations"
        self._print(text)

    def run_failed(self, error: BaseException) -> None:
        if isinstance(error, PreemptedError):
            self._print(f"run {error}")
            return
        outcome = "failed" if isinstance(error, Exception) else "stopped"  # by a signal
        self._print(f"run {outcome}: {type(error).__name__}: {error}")


def _resolved(info: RunInfo) -> str:
    return describe_resolved(
        info.config,
        recomputed_blocks=info.recomputed_blocks,
        number_of_ranks=info.number_of_ranks,
        global_batch_size=info.global_batch_size,
    )
