"""`benchmark run --tensorboard`: event files that TensorBoard reads, also of resumed runs."""

import builtins
import errno
import importlib.util
import math
from types import SimpleNamespace

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.run.failure import FULL_DISK, failure_kind
from benchmark.run.tensorboard import TensorBoardObserver, check_tensorboard
from tests.support.phased_run import evaluation_report, phase_report, run_info, step_report

HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
needs_tensorboard = pytest.mark.skipif(
    not HAS_TENSORBOARD, reason="the extra tensorboard is not installed"
)


def scalars(folder):
    """Return the values that TensorBoard shows: name -> {step: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


@needs_tensorboard
def test_every_metric_is_shown(tmp_path):
    observer = TensorBoardObserver(tmp_path)
    observer.init_stop(run_info())
    observer.phase_start(phase_report(1))
    for step in range(1, 21):
        observer.step(step_report(step))
    observer.evaluation(evaluation_report(20))
    found = scalars(tmp_path)
    assert set(found) == {
        "loss",
        "loss terms/fape",
        "loss terms/distogram",
        "optimizer/gradient norm",
        "optimizer/learning rate",
        "speed/step seconds",
        "speed/data wait seconds",
        "speed/samples per second",
        "speed/evaluation seconds",
        "loader/queue depth",
        "memory/peak GiB of the first rank",
        "lDDT-Ca/mean",
        "lDDT-Ca/lowest",
        "phase",
    }
    assert found["loss"][7] == pytest.approx(step_report(7).loss)
    assert found["loss terms/fape"][4] == pytest.approx(0.25)
    assert found["speed/samples per second"][20] == pytest.approx(2 / 0.25)
    assert list(found["memory/peak GiB of the first rank"]) == [10, 20]
    assert found["lDDT-Ca/mean"][20] == pytest.approx(0.2)
    assert found["lDDT-Ca/lowest"][20] == pytest.approx(0.19)


@needs_tensorboard
def test_a_resumed_run_replaces_the_repeated_steps(tmp_path):
    first = TensorBoardObserver(tmp_path)
    first.init_stop(run_info())
    for step in range(1, 50):
        first.step(step_report(step))
    again = TensorBoardObserver(tmp_path, continued=True)
    again.init_stop(run_info(phase=2, resumed_from_step=40))
    again.phase_start(phase_report(2))
    again.step(step_report(41))
    found = scalars(tmp_path)
    assert sorted(found["loss"]) == list(range(1, 42))
    assert found["phase"] == {41: 2.0}
    assert found["speed/samples per second"][41] == pytest.approx(4 / 0.5)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


@needs_tensorboard
def test_a_new_run_removes_the_files_of_an_earlier_one(tmp_path):
    for _ in range(2):
        observer = TensorBoardObserver(tmp_path)
        observer.init_stop(run_info())
        observer.step(step_report(1))
    (tmp_path / "tensorboard/notes.txt").touch()
    TensorBoardObserver(tmp_path)
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["notes.txt"]


@needs_tensorboard
def test_a_value_that_is_not_finite_is_written(tmp_path):
    observer = TensorBoardObserver(tmp_path)
    observer.init_stop(run_info())
    report = step_report(1)
    object.__setattr__(report, "gradient_norm", math.nan)
    observer.step(report)
    assert math.isnan(scalars(tmp_path)["optimizer/gradient norm"][1])


@needs_tensorboard
def test_a_full_disk_stops_the_run_and_names_the_file(tmp_path, monkeypatch):
    observer = TensorBoardObserver(tmp_path)
    observer.init_stop(run_info())

    class FullFile:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

        def write(self, _):
            return None

    monkeypatch.setattr(builtins, "open", lambda *_, **__: FullFile())
    with pytest.raises(OSError, match="events.out.tfevents.00000") as caught:
        observer.step(step_report(1))
    assert failure_kind(caught.value) == FULL_DISK


def test_without_the_package_the_extra_is_named(monkeypatch):
    fake = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr("benchmark.run.tensorboard.importlib", fake)
    with pytest.raises(BenchmarkError, match=r"pip install 'openfold-opt\[tensorboard\]'"):
        check_tensorboard()
