"""Read a run from an MLPerf log of the OpenFold benchmark, of any submitter.

Submitters differ in three ways. Evaluation alternates with training or is concurrent. The wait for
a batch has two names. With gradient accumulation, the MLCommons reference logs the samples of one
micro-step as global_batch_size and counts micro-steps; our logs have the samples of an optimizer
step and count optimizer steps. In both cases samples = steps x global_batch_size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.mlperf.log_order import order_complaints
from benchmark.mlperf.run_log import CONTINUED_KEY, Event, RunLog, as_table
from benchmark.run.output_directory import was_resumed

BENCHMARK = "openfold"
OUR_WAIT_KEY = "data_wait_seconds_per_step"
WAIT_KEYS = (OUR_WAIT_KEY, "avg_perf_next_batch")
"""Keys of the mean wait for a batch in seconds: ours, and NVIDIA's, which times the same call."""
SUCCESS = "success"
CLOSED_SAMPLE = {
    "model_parameters_count": 93_229_082,
    "train_sequence_crop_size": 256,
    "num_recycling_iters": 3,
    "max_msa_clusters": 124,
    "max_extra_msa": 1024,
    "max_templates": 4,
}
"""Keys that determine the work per sample in the closed division."""


_UPPER_BOUND = 2.0**63
"""Bound of all valid times in ms, counts and scores.

JSON also allows infinity and integers of any size.
"""


class LogError(ValueError):
    """A file is not the log of one complete run; the text is the reason."""


class ForeignLogError(LogError):
    """A log is of another benchmark."""


@dataclass(frozen=True, kw_only=True)
class TrainingInterval:
    """Training between two evaluations.

    `samples_before` and `samples` are the samples seen before and after it; `start` and `stop` are
    in seconds since run_start.
    """

    samples_before: int
    samples: int
    start: float
    stop: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """lDDT-Ca (0 to 1) of the weights after `samples`; times in seconds since run_start."""

    samples: int
    lddt_ca: float
    start: float
    stop: float


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """A complete run, as its log describes it. Times in ms are Unix times."""

    path: Path
    organization: str
    platform: str
    division: str
    precision: str | None
    seed: int | None
    num_nodes: int
    accelerators_per_node: int
    num_ranks: int
    batch: int
    """Samples per step, as this log counts steps."""
    accumulation: int
    is_ours: bool
    """Whether this project wrote the log."""
    target: float
    has_closed_sample: bool
    """Whether model and sample are those of the closed division."""
    init_start_ms: float | None
    run_start_ms: float
    run_stop_ms: float
    status: str
    intervals: tuple[TrainingInterval, ...]
    """Training intervals that ended before run_stop."""
    open_interval_start: float | None
    """Start of the training interval that was running at run_stop, or None.

    In seconds since run_start.
    """
    evaluations: tuple[Evaluation, ...]
    data_waits: tuple[float, ...]
    """Mean wait for a batch in seconds, one per training interval; empty if not logged."""

    @property
    def is_converged(self) -> bool:
        """Whether the run reached the target."""
        return self.status == SUCCESS

    @property
    def minutes(self) -> float:
        """Minutes from run_start to run_stop."""
        return (self.run_stop_ms - self.run_start_ms) / 60e3

    @property
    def samples(self) -> int:
        """Samples before the last evaluation, as the RCP checker counts them."""
        return self.evaluations[-1].samples

    @property
    def counts_micro_steps(self) -> bool:
        """Whether the log counts micro-steps; `batch` is then the samples of a micro-step."""
        return self.accumulation > 1 and not self.is_ours


def read_logged_run(path: Path) -> LoggedRun:
    """Read the log of a run.

    Raises:
        LogError: The file is not the log of one complete OpenFold run; the text is the reason.
    """
    events = _openfold_events(path)
    # The first event of a key counts.
    values = {event.key: event.value for event in reversed(events)}
    start, stop = _run_start_and_stop(events, path)
    inside = events[events.index(start) : events.index(stop) + 1]
    start_ms = start.time_ms
    stats = [as_table(event.value) for event in inside if event.key == "tracked_stats"]
    is_ours = any(OUR_WAIT_KEY in stat for stat in stats)
    evaluations = _evaluations(inside, start_ms)
    precision, seed = values.get("precision"), values.get("seed")
    num_nodes = _count(values, "number_of_nodes", least=1)
    accelerators_per_node = _count(values, "accelerators_per_node", least=0)
    return LoggedRun(
        path=path,
        organization=str(values.get("submission_org", "unknown")),
        platform=str(values.get("submission_platform", "unknown")),
        division=str(values.get("submission_division", "unknown")),
        precision=precision if isinstance(precision, str) else None,
        seed=seed if isinstance(seed, int) else None,
        num_nodes=num_nodes,
        accelerators_per_node=accelerators_per_node,
        num_ranks=_count(
            values, "number_of_ranks", least=1, default=max(1, num_nodes * accelerators_per_node)
        ),
        batch=_count(values, "global_batch_size", least=1),
        accumulation=_count(values, "gradient_accumulation_steps", least=1, default=1),
        is_ours=is_ours,
        target=_number(values.get("target_avg_lddt_ca_value", 0.8), "target_avg_lddt_ca_value"),
        has_closed_sample=all(values.get(key) == value for key, value in CLOSED_SAMPLE.items()),
        init_start_ms=next((each.time_ms for each in events if each.key == "init_start"), None),
        run_start_ms=start_ms,
        run_stop_ms=stop.time_ms,
        status=str(stop.detail("status")),
        intervals=_intervals(inside, start_ms),
        open_interval_start=_open_interval_start(inside, start_ms),
        evaluations=evaluations,
        data_waits=_data_waits(inside),
    )


def _openfold_events(path: Path) -> Sequence[Event]:
    """Return all events of an undamaged log of this benchmark, of a run that was not resumed."""
    try:
        log = RunLog.read(path)
    except OSError as error:
        raise LogError(f"cannot be read: {error.strerror or error}") from error
    if log.damage:
        raise LogError(f"damaged: {_first(log.damage)}")
    if not log.events:
        raise LogError("it contains no MLPerf event (:::MLLOG ...)")
    named = log.first("submission_benchmark")
    benchmark = None if named is None else named.value
    if benchmark != BENCHMARK:
        error_type = ForeignLogError if isinstance(benchmark, str) else LogError
        raise error_type(f"submission_benchmark is {benchmark!r}, expected {BENCHMARK!r}")
    if log.first(CONTINUED_KEY) is not None:
        raise LogError("the run was resumed, so it is not a result")
    errors = order_complaints(log.events)
    if errors:
        raise LogError(_first(errors))
    return log.events


def _first(errors: Sequence[str]) -> str:
    more = len(errors) - 1
    return errors[0] + (f" (and {more} more)" if more else "")


def _run_start_and_stop(events: Sequence[Event], path: Path) -> tuple[Event, Event]:
    """Return run_start and run_stop. Raises LogError without a complete run."""
    starts = [event for event in events if event.key == "run_start"]
    stops = [event for event in events if event.key == "run_stop"]
    if not starts:
        raise LogError("no run_start: the run ended before its start, or the log is truncated")
    if not stops:
        if was_resumed(path):
            raise LogError("no run_stop: the run crashed and was resumed, so it is not a result")
        raise LogError("no run_stop: the run crashed or is still running, or the log is truncated")
    if stops[0].time_ms == starts[0].time_ms:
        raise LogError(f"run_stop is not after run_start: both have time_ms {stops[0].time_ms}")
    return starts[0], stops[0]


def _intervals(events: Sequence[Event], start_ms: float) -> tuple[TrainingInterval, ...]:
    """Return the finished training intervals; epoch_num is the number of samples at the end."""
    intervals: list[TrainingInterval] = []
    started: Event | None = None
    for event in events:
        if event.key == "epoch_start":
            started = event
        elif event.key == "epoch_stop" and started is not None:
            before = intervals[-1].samples if intervals else 0
            samples = _samples(event)
            if samples <= before:
                reason = f"epoch_stop at {samples} samples does not come after {before} samples"
                raise LogError(reason)
            start, stop = ((each.time_ms - start_ms) / 1e3 for each in (started, event))
            intervals.append(
                TrainingInterval(samples_before=before, samples=samples, start=start, stop=stop)
            )
            started = None
    return tuple(intervals)


def _open_interval_start(events: Sequence[Event], start_ms: float) -> float | None:
    """Return the start of the training interval that did not end before run_stop, if any."""
    last = next(
        (event for event in reversed(events) if event.key in ("epoch_start", "epoch_stop")), None
    )
    return (
        (last.time_ms - start_ms) / 1e3 if last is not None and last.key == "epoch_start" else None
    )


def _evaluations(events: Sequence[Event], start_ms: float) -> tuple[Evaluation, ...]:
    """Return the evaluations in the order of their results.

    The number of samples matches the start and the result of concurrent evaluations.
    """
    starts: dict[int, float] = {}
    evaluations = []
    for event in events:
        if event.key == "eval_start":
            starts[_samples(event)] = event.time_ms
        elif event.key == "eval_accuracy":
            samples = _samples(event)
            value = _number(event.value, "eval_accuracy")
            stop = event.time_ms
            start = starts.get(samples, stop)
            evaluations.append(
                Evaluation(
                    samples=samples,
                    lddt_ca=value,
                    start=(start - start_ms) / 1e3,
                    stop=(stop - start_ms) / 1e3,
                )
            )
    return tuple(evaluations)


def _data_waits(events: Sequence[Event]) -> tuple[float, ...]:
    waits = []
    for event in events:
        if event.key == "tracked_stats":
            stats = as_table(event.value)
            waits += [_number(stats[key], key) for key in WAIT_KEYS if key in stats]
    return tuple(waits)


def _samples(event: Event) -> int:
    return int(_number(event.detail("epoch_num"), f"epoch_num of {event.key}"))


def _count(
    values: Mapping[str, object], key: str, *, least: int, default: int | None = None
) -> int:
    value = _number(values.get(key, default), key)
    if value < least or value != int(value):
        raise LogError(f"{key} is {value}, expected a whole number of at least {least}")
    return int(value)


def _number(value: object, name: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -_UPPER_BOUND < value < _UPPER_BOUND
    ):
        raise LogError(f"{name} is {value!r}, expected a number")
    return value
