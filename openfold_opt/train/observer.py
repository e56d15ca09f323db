"""Observers of a run: the protocol of events, and the basic observers.

Order of the events of a run:

    init_start -> preparing * -> init_stop -> run_start -> data_ready
      -> { interval_start -> step * -> interval_stop
           -> evaluation_start -> evaluation -> evaluation_stop } *
      -> run_stop -> run_end

In a run with several phases, the part in braces repeats for each phase, between phase_start and
phase_stop; preparing comes again before a later phase. run_stop comes before the last phase_stop.

An interval is the training between two evaluations. The last step of a run ends its interval and is
evaluated, so the last interval may be shorter. An interval has no interval_stop if the run ends
inside it for another reason.

checkpoint_written, checkpoint_saved (both from the writer thread) and warning may come at any time
between run_start and run_end. If other ranks evaluate, evaluation_start comes when an evaluation is
requested; evaluation and evaluation_stop come between two later steps, when the result is known.
run_stop then follows the first result that meets the target.

A run that fails with an exception sends run_failed instead of run_stop and run_end. Only the first
rank sends events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from openfold_opt.train.config import RunConfig
from openfold_opt.train.evaluation.evaluator import ChainScore


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Facts about a run that are known once the model is built, before any data is read."""

    config: RunConfig
    """Resolved: no field is "auto", except recompute, for which there is recomputed_blocks."""
    seed: int
    number_of_ranks: int
    number_of_nodes: int
    ranks_per_node: int
    device: str
    """"cpu" or the name of the GPU."""
    global_batch_size: int
    num_parameters: int
    num_tensors: int
    init_checkpoint_sha256: str | None
    """None if training starts from random weights."""
    resumed_from_step: int
    """Optimizer steps that earlier processes of this run made; 0 for a new run."""
    resumed_from: Path | None = None
    data_checksum: str | None = None
    """Checksum of the data set's index."""
    recomputed_blocks: Mapping[str, int] = field(default_factory=dict)
    """For each stack, the number of blocks that the backward pass recomputes."""


@dataclass(frozen=True, kw_only=True)
class PhaseReport:
    """A phase of a run with several phases, when it starts or continues, or when it ends."""

    name: str
    number: int
    """From 1."""
    count: int
    """Number of phases of the run."""
    steps_before: int
    """Optimizer steps of the run before the phase."""
    last_step: int
    """Step of the run after which the phase ends at the latest; at its end, the step after which
    it ended."""
    best_lddt_ca: float | None
    """Highest lDDT-Ca of the evaluations of the phase so far; None: there is none."""
    required_lddt_ca: float | None
    """Score that an evaluation of the phase must reach; None: there is no condition."""
    info: RunInfo
    """The run in this phase, with the resolved configuration of the phase."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Metrics of an optimizer step; averages over the global batch."""

    step: int
    """Counts from 1."""
    samples_seen: int
    """Training samples so far, including this step."""
    num_recycling_iterations: int
    loss: float
    """The total loss that is differentiated, scaled by the square root of the length."""
    terms: Mapping[str, float]
    """Unweighted loss terms by name."""
    gradient_norm: float
    """Before clipping; if samples are clipped separately, the mean of their norms."""
    learning_rate: float
    step_time_seconds: float
    """From the start of this step to the start of the next, including the data wait."""
    data_wait_seconds: float
    queue_depth: int
    """Prepared batches in the queue of the first rank's loader."""
    reorder_distance: int
    """How far the step's batch was ahead of the first missing one; 0 in strict order."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Result of an evaluation of the averaged weights."""

    step: int
    samples_at_end: int
    """Training samples at the end of the interval that the evaluation follows."""
    lddt_ca: float
    """Mean over chains."""
    chains: tuple[ChainScore, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Result of a run, and metrics of the part that this process ran."""

    status: str
    """"success": target reached; "aborted": step limit reached; "phase complete": another phase
    follows."""
    steps: int
    """Optimizer steps since the beginning of the run, including those before a resumption."""
    samples: int
    resumed_from_step: int
    run_seconds: float
    """From run_start to run_stop, or to the end of the phase."""
    training_seconds: float
    evaluation_seconds: float
    """Time that training waited for evaluations."""
    data_wait_seconds: float
    evaluations: tuple[EvaluationReport, ...] = field(default=())
    resumed_from_samples: int = 0
    """Samples that earlier processes trained on."""
    peak_memory_bytes: int = 0
    """Of the first rank: of its GPU, or of its process on a CPU."""
    num_eager_steps: int | None = None
    """Steps of the first rank that did not use a CUDA graph; None: the run has no graphs."""
    num_evaluation_waits: int | None = None
    """How often training waited for evaluation ranks; None: there are none."""

    @property
    def outcome(self) -> str:
        """The status for display; "aborted" would look like a failure."""
        return "target not reached" if self.status == "aborted" else self.status

    @property
    def trained_steps(self) -> int:
        """Optimizer steps that this process made."""
        return self.steps - self.resumed_from_step

    @property
    def trained_samples(self) -> int:
        """Samples that this process trained on."""
        return self.samples - self.resumed_from_samples

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a step, including the data wait; 0 without steps."""
        return self.training_seconds / self.trained_steps if self.trained_steps else 0.0

    @property
    def samples_per_second(self) -> float:
        """Training samples per second of training time; 0 without steps."""
        return self.trained_samples / self.training_seconds if self.training_seconds else 0.0


def join_summaries(summaries: Sequence[RunSummary]) -> RunSummary:
    """Return the summary of a process from those of its phases, in order."""
    first, last = summaries[0], summaries[-1]
    eager = [part.num_eager_steps for part in summaries if part.num_eager_steps is not None]
    waits = [
        part.num_evaluation_waits for part in summaries if part.num_evaluation_waits is not None
    ]
    return replace(
        last,
        resumed_from_step=first.resumed_from_step,
        resumed_from_samples=first.resumed_from_samples,
        training_seconds=sum(part.training_seconds for part in summaries),
        evaluation_seconds=sum(part.evaluation_seconds for part in summaries),
        data_wait_seconds=sum(part.data_wait_seconds for part in summaries),
        evaluations=tuple(report for part in summaries for report in part.evaluations),
        peak_memory_bytes=max(part.peak_memory_bytes for part in summaries),
        num_eager_steps=sum(eager) if eager else None,
        num_evaluation_waits=sum(waits) if waits else None,
    )


class RunObserver(Protocol):
    """Receiver of a run's events. The module docstring gives their order."""

    def init_start(self, config: RunConfig, *, seed: int) -> None: ...

    def preparing(self, what: str) -> None: ...

    def init_stop(self, info: RunInfo) -> None: ...

    def run_start(self, info: RunInfo) -> None: ...

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None: ...

    def phase_start(self, report: PhaseReport) -> None: ...

    def phase_stop(self, report: PhaseReport) -> None: ...

    def interval_start(self, *, step: int, samples_at_end: int) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def interval_stop(
        self, *, step: int, samples_at_end: int, samples_per_second: float
    ) -> None: ...

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None: ...

    def evaluation(self, report: EvaluationReport) -> None: ...

    def evaluation_stop(self, *, step: int, samples_at_end: int) -> None: ...

    def checkpoint_written(self, *, step: int) -> None: ...

    def checkpoint_saved(self, path: Path, *, step: int) -> None: ...

    def warning(self, message: str) -> None: ...

    def run_stop(self, *, status: str, samples: int) -> None: ...

    def run_end(self, summary: RunSummary) -> None: ...

    def run_failed(self, error: BaseException) -> None: ...


class NullObserver:
    """Ignores all events. Base class for observers that handle only some of them."""

    def init_start(self, config: RunConfig, *, seed: int) -> None:
        """Set-up of the run starts."""

    def preparing(self, what: str) -> None:
        """A part of the set-up is done. what: a line that describes it."""

    def init_stop(self, info: RunInfo) -> None:
        """Model, optimizer and processes are ready. No data has been read."""

    def run_start(self, info: RunInfo) -> None:
        """The timed part of the run starts. From now on, data may be read."""

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None:
        """Chains were selected.

        train_samples, eval_samples: numbers of chains to train on and to evaluate. held_out: ids of
        the chains that are never trained on, because their cluster is evaluated.
        """

    def phase_start(self, report: PhaseReport) -> None:
        """A phase starts or continues. Not sent by runs without phases."""

    def phase_stop(self, report: PhaseReport) -> None:
        """A phase has ended as required, and its last checkpoint is saved."""

    def interval_start(self, *, step: int, samples_at_end: int) -> None:
        """An interval starts after `step` steps; samples_at_end as in EvaluationReport."""

    def step(self, report: StepReport) -> None:
        """An optimizer step is finished. The event comes one step late."""

    def interval_stop(self, *, step: int, samples_at_end: int, samples_per_second: float) -> None:
        """An interval ends after `step` steps, and an evaluation follows."""

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None:
        """An evaluation starts."""

    def evaluation(self, report: EvaluationReport) -> None:
        """The result of an evaluation is known."""

    def evaluation_stop(self, *, step: int, samples_at_end: int) -> None:
        """An evaluation is finished."""

    def checkpoint_written(self, *, step: int) -> None:
        """A checkpoint is on the disk and gets its final name next. Sent by the writer thread."""

    def checkpoint_saved(self, path: Path, *, step: int) -> None:
        """A checkpoint has its final name. Sent by the writer thread."""

    def warning(self, message: str) -> None:
        """A message for the user about a problem that does not stop the run."""

    def run_stop(self, *, status: str, samples: int) -> None:
        """The timed part of the run ends. status: one of those of RunSummary."""

    def run_end(self, summary: RunSummary) -> None:
        """The run is finished and its resources are closed."""

    def run_failed(self, error: BaseException) -> None:
        """The run fails with this exception."""


class CompositeObserver:
    """Sends every event to several observers, in order."""

    def __init__(self, *observers: RunObserver) -> None:
        self._observers = observers

    def __getattr__(self, event: str) -> Callable[..., None]:
        if event.startswith("_"):
            raise AttributeError(event)
        receivers = [getattr(observer, event) for observer in self._observers]

        def send(*args: object, **kwargs: object) -> None:
            for receiver in receivers:
                receiver(*args, **kwargs)

        return send

    def run_failed(self, error: BaseException) -> None:
        """Send the failure to every observer, even if one of them fails, as on a full disk.

        The failure of an observer becomes a note of the error.
        """
        for observer in self._observers:
            try:
                observer.run_failed(error)
            except OSError as failure:
                error.add_note(f"{type(observer).__name__} could not record it: {failure}")
