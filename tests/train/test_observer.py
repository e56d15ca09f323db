"""Lines of the console observer, and the distribution of events."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from openfold_opt.train.console_observer import ConsoleObserver, format_duration
from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import (
    CompositeObserver,
    EvaluationReport,
    NullObserver,
    RunInfo,
    RunObserver,
    RunSummary,
    StepReport,
)
from openfold_opt.train.preemption import PreemptedError


def step_report(step):
    return StepReport(
        step=step,
        samples_seen=step * 4,
        num_recycling_iterations=2,
        loss=12.5,
        terms={"fape": 1.0},
        gradient_norm=3.25,
        learning_rate=1e-3,
        step_time_seconds=0.5,
        data_wait_seconds=0.125,
        queue_depth=2,
        reorder_distance=0,
    )


def summary(**changes):
    values = {
        "status": "success",
        "steps": 30,
        "samples": 120,
        "resumed_from_step": 0,
        "run_seconds": 20.0,
        "training_seconds": 15.0,
        "evaluation_seconds": 4.0,
        "data_wait_seconds": 1.0,
    }
    return RunSummary(**(values | changes))


def test_the_console_prints_a_line_per_log_interval():
    stream = io.StringIO()
    observer = ConsoleObserver(log_every_steps=10, stream=stream)
    for step in range(1, 31):
        observer.step(step_report(step))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    for word in (
        "step     20",
        "k 2",
        "loss   12.5000",
        "lr 1.00e-03",
        "grad norm    3.2500",
        "0.500 s/step",
        "data wait 0.125 s",
    ):
        assert word in lines[1]


def test_evaluation_warning_checkpoint_and_end_are_printed():
    stream = io.StringIO()
    observer = ConsoleObserver(stream=stream)
    chains = (
        ChainScore(chain_id="1abc_A", lddt_ca=0.5, num_residues=50),
        ChainScore(chain_id="2xyz_B", lddt_ca=0.75, num_residues=60),
    )
    observer.evaluation(
        EvaluationReport(step=40, samples_at_end=160, lddt_ca=0.625, chains=chains, seconds=2.0)
    )
    observer.warning("look here")
    observer.checkpoint_saved(Path("step_00000040.pt"), step=40)
    observer.run_end(summary())
    observer.run_failed(ValueError("bad"))
    text = stream.getvalue()
    for word in (
        "lDDT-Ca 0.6250 over 2 chains (lowest 0.5000, 1abc_A)",
        "WARNING: look here",
        "step_00000040.pt",
        "success after 30 steps, 120 samples",
        "0.500 s/step, 8.00 samples/s",
        "ValueError: bad",
    ):
        assert word in text


def test_a_stop_on_request_is_no_failure():
    stream = io.StringIO()
    observer = ConsoleObserver(stream=stream)
    observer.run_failed(PreemptedError("stopped on request after step 3"))
    observer.run_failed(KeyboardInterrupt("now"))
    assert stream.getvalue().splitlines() == [
        "run stopped on request after step 3",
        "run stopped: KeyboardInterrupt: now",
    ]


def test_a_resumed_run_counts_only_the_steps_of_this_process():
    resumed = summary(resumed_from_step=20, resumed_from_samples=80, training_seconds=5.0)
    assert resumed.trained_steps == 10
    assert resumed.seconds_per_step == pytest.approx(0.5)
    assert resumed.samples_per_second == pytest.approx(8.0)
    idle = summary(resumed_from_step=30, resumed_from_samples=120, training_seconds=0.0)
    assert idle.seconds_per_step == 0.0 and idle.samples_per_second == 0.0


def test_the_last_line_of_a_resumed_run_counts_its_part_and_the_whole():
    stream = io.StringIO()
    ConsoleObserver(stream=stream).run_end(summary(resumed_from_step=20, resumed_from_samples=80))
    expected = "success after 30 steps, 120 samples; this part: 10 steps, 40 samples, 20.0 s"
    assert stream.getvalue().startswith(expected)


def test_events_reach_all_observers_in_order():
    events = []

    class NamedObserver(NullObserver):
        def __init__(self, name):
            self.name = name

        def run_stop(self, *, status, samples):
            events.append((self.name, status, samples))

    observer = CompositeObserver(NamedObserver("a"), NamedObserver("b"))
    observer.run_stop(status="aborted", samples=7)
    assert events == [("a", "aborted", 7), ("b", "aborted", 7)]


def test_the_null_observer_accepts_every_event():
    events = [name for name in vars(RunObserver) if not name.startswith("_")]
    assert len(events) == 19
    assert all(name in vars(NullObserver) for name in events)


def test_a_failure_reaches_all_observers_even_if_one_cannot_write():
    errors = []

    class Full(NullObserver):
        def run_failed(self, error):
            raise OSError(28, "No space left on device")

    class FailureObserver(NullObserver):
        def run_failed(self, error):
            errors.append(error)

    error = ValueError("bad")
    CompositeObserver(Full(), FailureObserver()).run_failed(error)
    assert errors == [error]
    assert error.__notes__ == ["Full could not record it: [Errno 28] No space left on device"]


def test_the_console_shows_aborted_as_target_not_reached():
    stream = io.StringIO()
    ConsoleObserver(stream=stream).run_end(summary(status="aborted"))
    assert stream.getvalue().startswith("target not reached after 30 steps")


def test_step_lines_show_the_total_and_the_time_left(monkeypatch):
    clock = iter([100.0, 130.0, 160.0])
    monkeypatch.setattr("openfold_opt.train.console_observer.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(
        "openfold_opt.train.console_observer.describe_resolved", lambda *_, **__: ""
    )
    stream = io.StringIO()
    observer = ConsoleObserver(log_every_steps=10, stream=stream)
    info = RunInfo(
        config=SimpleNamespace(max_steps=1000),
        seed=1,
        number_of_ranks=1,
        number_of_nodes=1,
        ranks_per_node=1,
        device="cpu",
        global_batch_size=2,
        num_parameters=1,
        num_tensors=1,
        init_checkpoint_sha256=None,
        resumed_from_step=10,
    )
    observer.init_stop(info)
    observer.data_ready(train_samples=1, eval_samples=1)
    for step in (20, 1000):
        observer.step(step_report(step))
    first, last = stream.getvalue().splitlines()[-2:]
    # 10 steps took 30 s, and 980 are left.
    assert "step     20 of 1,000  k 2" in first and first.endswith("49 min left at most")
    assert last.endswith("  0 s left at most")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (42.4, "42 s"),
        (600, "10 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
        (99.6, "100 s"),
    ],
)
def test_durations_have_suitable_units(seconds, text):
    assert format_duration(seconds) == text
