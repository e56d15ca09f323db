"""What a run tells the outside: a protocol of events, and the plain observers.

Order of the events of a run:

    init_start -> preparing * -> init_stop -> run_start -> data_ready
      -> { block_start -> step * -> block_stop -> evaluation_start -> evaluation -> evaluation_stop } *
      -> run_stop -> run_end

checkpoint_written (in another thread), checkpoint_saved (in that thread) and warning may come anywhere between run_start and run_end.
Where other ranks evaluate, evaluation_start comes when an evaluation is asked for, evaluation and evaluation_stop when its result is
there, between any two steps; run_stop follows the first that meets the target. A block is the training
between two evaluations. The last step of a run that is out of steps ends its block and is evaluated, so the last block may be
shorter; a block is left open when the run ends inside it for another reason. A run that dies of an exception
sends run_failed instead of run_stop and run_end. Events are sent on the first rank only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from openfold_opt.train.preemption import PreemptedError
from openfold_opt.train.resolved import describe_resolved
from openfold_opt.train.selection import name_chains

if TYPE_CHECKING:
    from openfold_opt.train.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What is known once the model is built and before any data is touched."""

    config: RunConfig
    """Resolved: no field is "auto" except recompute, which recomputed_blocks resolves."""
    seed: int
    number_of_ranks: int
    number_of_nodes: int
    ranks_per_node: int
    device: str
    """"cpu", or the name of the GPU."""
    global_batch_size: int
    num_parameters: int
    num_tensors: int
    init_checkpoint_sha256: str | None
    """None when training starts from random weights."""
    resumed_from_step: int
    """Optimizer steps already done by an earlier process of this run; 0 for a fresh run."""
    resumed_from: Path | None = None
    data_checksum: str | None = None
    """Checksum of the index of the data set."""
    recomputed_blocks: Mapping[str, int] = field(default_factory=dict)
    """Stack -> blocks of it that are computed again in the backward pass."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One optimizer step; figures are averages over the global batch."""

    step: int
    """Counts from 1."""
    samples_seen: int
    """Samples trained on so far, this step included."""
    num_recycling_iterations: int
    loss: float
    """The differentiated total, scaled by the root of the length."""
    terms: Mapping[str, float]
    """Unweighted loss terms by name."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    step_time_seconds: float
    """From the beginning of this step to the beginning of the next, data wait included."""
    data_wait_seconds: float
    queue_depth: int
    """Prepared batches that the first rank's loader had left."""
    reorder_distance: int
    """How many places the step's batch was ahead of the first that was missing; 0 in strict order."""


@dataclass(frozen=True, kw_only=True)
class ChainScore:
    """lDDT-Ca of one whole chain, 0 to 1."""

    chain_id: str
    lddt_ca: float
    num_residues: int


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """One evaluation of the averaged weights."""

    step: int
    epoch_num: int
    """Samples seen at the end of the block of training steps that it follows."""
    lddt_ca: float
    """Mean over chains."""
    chains: tuple[ChainScore, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Figures of this process's part of the run."""

    status: str
    """"success" (target reached) or "aborted" (out of steps)."""
    steps: int
    """Optimizer steps since the beginning of the run, those before a resumption included."""
    samples: int
    resumed_from_step: int
    run_seconds: float
    """Since run_start."""
    training_seconds: float
    evaluation_seconds: float
    """That training stood still for evaluations."""
    data_wait_seconds: float
    evaluations: tuple[EvaluationReport, ...] = field(default=())
    peak_memory_bytes: int = 0
    """Of the first rank: on its GPU, or of its process on a CPU."""
    num_eager_steps: int | None = None
    """Of the first rank: steps that fitted no graph; None: the run has no graphs."""
    num_evaluation_waits: int | None = None
    """How often training waited for the evaluation ranks; None: there are none."""

    @property
    def outcome(self) -> str:
        """The status in words for people, who read "aborted" as a failure."""
        return "target not reached" if self.status == "aborted" else self.status

    @property
    def trained_steps(self) -> int:
        """Optimizer steps of this process."""
        return self.steps - self.resumed_from_step

    @property
    def trained_samples(self) -> int:
        """Samples that this process trained on."""
        return self.samples * self.trained_steps // self.steps if self.steps else 0

    @property
    def seconds_per_step(self) -> float:
        """Mean, data wait included; 0 if no step was made."""
        return self.training_seconds / self.trained_steps if self.trained_steps else 0.0

    @property
    def samples_per_second(self) -> float:
        """Samples trained per second of training."""
        if not self.steps or not self.training_seconds:
            return 0.0
        return self.samples / self.steps * self.trained_steps / self.training_seconds


class RunObserver(Protocol):
    """Receiver of a run's events; see the top of the file for their order."""

    def init_start(self, config: RunConfig, *, seed: int) -> None: ...

    def preparing(self, what: str) -> None: ...

    def init_stop(self, info: RunInfo) -> None: ...

    def run_start(self, info: RunInfo) -> None: ...

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None: ...

    def block_start(self, *, step: int, epoch_num: int) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def block_stop(self, *, step: int, epoch_num: int, samples_per_second: float) -> None: ...

    def evaluation_start(self, *, step: int, epoch_num: int) -> None: ...

    def evaluation(self, report: EvaluationReport) -> None: ...

    def evaluation_stop(self, *, step: int, epoch_num: int) -> None: ...

    def checkpoint_written(self, *, step: int) -> None: ...

    def checkpoint_saved(self, path: Path, *, step: int) -> None: ...

    def warning(self, message: str) -> None: ...

    def run_stop(self, *, status: str, samples: int) -> None: ...

    def run_end(self, summary: RunSummary) -> None: ...

    def run_failed(self, error: BaseException) -> None: ...


class NullObserver:
    """Hears everything and says nothing; a base for observers that want a few events."""

    def init_start(self, config: RunConfig, *, seed: int) -> None:
        """A run begins to set itself up."""

    def preparing(self, what: str) -> None:
        """Something before the clock that takes a while is done."""

    def init_stop(self, info: RunInfo) -> None:
        """Model, optimizer and processes are ready; no data was read."""

    def run_start(self, info: RunInfo) -> None:
        """The clock starts; from here on data may be read."""

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None:
        """Chains were selected.

        train_samples, eval_samples: numbers of chains to train on and to evaluate. held_out: ids of
        the chains that are never trained on, because their cluster is evaluated.
        """

    def block_start(self, *, step: int, epoch_num: int) -> None:
        """Training begins after `step` steps; epoch_num as in EvaluationReport."""

    def step(self, report: StepReport) -> None:
        """One optimizer step is over; sent one step late."""

    def block_stop(self, *, step: int, epoch_num: int, samples_per_second: float) -> None:
        """Training stops for an evaluation."""

    def evaluation_start(self, *, step: int, epoch_num: int) -> None:
        """An evaluation begins."""

    def evaluation(self, report: EvaluationReport) -> None:
        """The figure of an evaluation."""

    def evaluation_stop(self, *, step: int, epoch_num: int) -> None:
        """An evaluation is over."""

    def checkpoint_written(self, *, step: int) -> None:
        """A checkpoint is complete on the disk and about to get its name; sent by the thread that writes it."""

    def checkpoint_saved(self, path: Path, *, step: int) -> None:
        """A checkpoint has its name; sent by the thread that writes it."""

    def warning(self, message: str) -> None:
        """Something that a person should see, but that does not stop the run."""

    def run_stop(self, *, status: str, samples: int) -> None:
        """The clock stops: "success" or "aborted"."""

    def run_end(self, summary: RunSummary) -> None:
        """Everything is closed."""

    def run_failed(self, error: BaseException) -> None:
        """The run dies of this exception."""


class CompositeObserver:
    """Hands every event on to several observers, in their order."""

    def __init__(self, *observers: RunObserver) -> None:
        self._observers = observers

    def __getattr__(self, event: str):
        if event.startswith("_"):
            raise AttributeError(event)
        receivers = [getattr(observer, event) for observer in self._observers]

        def send(*args, **kwargs) -> None:
            for receiver in receivers:
                receiver(*args, **kwargs)

        return send

    def run_failed(self, error: BaseException) -> None:
        """Every observer hears of a failure, even if another one cannot write, as on a full disk.

        What could not be written becomes a note of the error.
        """
        for observer in self._observers:
            try:
                observer.run_failed(error)
            except OSError as failure:
                error.add_note(f"{type(observer).__name__} could not record it: {failure}")


def format_duration(seconds: float) -> str:
    """A time for people, to the unit that matters: "42 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


class ConsoleObserver(NullObserver):
    """One line per log interval, per evaluation and per checkpoint."""

    def __init__(self, *, log_every_steps: int = 10, stream: TextIO | None = None) -> None:
        self._log_every_steps = log_every_steps
        self._stream = stream if stream is not None else sys.stdout
        self._max_steps: int | None = None
        self._first_step, self._first_time = 0, 0.0

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def preparing(self, what: str) -> None:
        self._say(what)

    def init_stop(self, info: RunInfo) -> None:
        start = (
            f"resumed after step {info.resumed_from_step}" if info.resumed_from_step else "fresh"
        )
        self._say(
            f"run of {info.number_of_ranks} ranks on {info.device}, global batch {info.global_batch_size}, "
            f"{info.num_parameters:,} parameters in {info.num_tensors:,} tensors, seed {info.seed}, {start}"
        )
        self._say(
            describe_resolved(
                info.config,
                recomputed_blocks=info.recomputed_blocks,
                number_of_ranks=info.number_of_ranks,
                global_batch_size=info.global_batch_size,
            )
        )

        self._max_steps, self._first_step = info.config.max_steps, info.resumed_from_step

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None:
        self._first_time = time.monotonic()
        self._say(f"data: {train_samples:,} chains to train on, {eval_samples:,} to evaluate")
        if held_out:
            self._say(f"held out of training: {name_chains(held_out)}")

    def step(self, report: StepReport) -> None:
        if report.step % self._log_every_steps:
            return
        self._say(
            f"step {report.step:>6}{self._total()}  k {report.num_recycling_iterations}  loss {report.loss:9.4f}  "
            f"lr {report.learning_rate:.2e}  grad norm {report.gradient_norm:9.4f}  "
            f"{report.step_time_seconds:.3f} s/step  data wait {report.data_wait_seconds:.3f} s"
            f"{self._time_left(report.step)}"
        )

    def _total(self) -> str:
        return "" if self._max_steps is None else f" of {self._max_steps:,}"

    def _time_left(self, step: int) -> str:
        """To the last step, at the pace of this process so far, evaluations included."""
        num_done = step - self._first_step
        if self._max_steps is None or num_done < 1:
            return ""
        pace = (time.monotonic() - self._first_time) / num_done
        return f"  {format_duration(pace * (self._max_steps - step))} left at most"

    def evaluation(self, report: EvaluationReport) -> None:
        worst = min(report.chains, key=lambda chain: chain.lddt_ca)
        self._say(
            f"evaluation after step {report.step}: lDDT-Ca {report.lddt_ca:.4f} over {len(report.chains)} chains "
            f"(lowest {worst.lddt_ca:.4f}, {worst.chain_id}), {report.seconds:.1f} s"
        )

    def checkpoint_saved(self, path: Path, *, step: int) -> None:
        self._say(f"checkpoint of step {step}: {path}")

    def warning(self, message: str) -> None:
        self._say(f"WARNING: {message}")

    def run_end(self, summary: RunSummary) -> None:
        part = (
            f"; this part: {summary.trained_steps} steps, {summary.trained_samples:,} samples"
            if summary.resumed_from_step
            else ""
        )
        self._say(
            f"{summary.outcome} after {summary.steps} steps, {summary.samples:,} samples{part}, "
            f"{summary.run_seconds:.1f} s "
            f"(training {summary.training_seconds:.1f}, evaluation {summary.evaluation_seconds:.1f}, "
            f"data wait {summary.data_wait_seconds:.1f}); {summary.seconds_per_step:.3f} s/step, "
            f"{summary.samples_per_second:.2f} samples/s, peak memory {summary.peak_memory_bytes / 2**30:.2f} GiB"
            + (
                ""
                if summary.num_eager_steps is None
                else f"; {summary.num_eager_steps} steps fitted no CUDA graph"
            )
            + (
                ""
                if summary.num_evaluation_waits is None
                else f"; training waited {summary.num_evaluation_waits} times for evaluations"
            )
        )

    def run_failed(self, error: BaseException) -> None:
        if isinstance(error, PreemptedError):
            self._say(f"run {error}")
            return
        # A signal that ends the process at once is no Exception.
        outcome = "failed" if isinstance(error, Exception) else "stopped"
        self._say(f"run {outcome}: {type(error).__name__}: {error}")
