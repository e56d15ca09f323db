"""A run whose wall clock is set says so in its log, in run.json and on the console."""

import json
import time

import pytest

from benchmark.mlperf.check import check_log
from benchmark.mlperf.log import MLPerfObserver
from benchmark.mlperf.run_log import RunLog
from benchmark.mlperf.submitter import Submitter
from benchmark.presets import build_preset
from benchmark.run.output_directory import OutputDirectory
from benchmark.run.run_clock import RunClock, clock_disagreement
from benchmark.run.run_record import RunRecord
from openfold_opt.train.observer import CompositeObserver, RunInfo, RunSummary

WORDS = "by the monotonic clock"


@pytest.mark.parametrize(
    ("wall", "monotonic", "agree"),
    [
        (450.0, 450.0, True),
        (450.9, 450.0, True),
        (7205.0, 7200.0, True),
        (452.0, 450.0, False),
        (-3150.0, 450.0, False),
    ],
)
def test_small_differences_are_those_of_time_synchronization(wall, monotonic, agree):
    assert (clock_disagreement(wall, monotonic) is None) == agree


class Wall:
    """A wall clock that can be set."""

    def __init__(self, monkeypatch):
        self.offset = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.offset)


def run_info():
    return RunInfo(
        config=build_preset("demo"),
        seed=1,
        number_of_ranks=1,
        number_of_nodes=1,
        ranks_per_node=1,
        device="cpu",
        global_batch_size=2,
        num_parameters=1,
        num_tensors=1,
        init_checkpoint_sha256=None,
        resumed_from_step=0,
    )


def run_with(folder, *, during):
    """run.json's clock after a run of no steps; during: called between run_start and run_stop."""
    directory = OutputDirectory(folder, identity={}, seed=1, new_seed=1)
    clock = RunClock()
    log = MLPerfObserver(
        directory.log_path, submitter=Submitter(), division="open", cache_cleared=True, clock=clock
    )
    record = RunRecord(directory, preset="demo", division="open", clock=clock)
    observer, info = CompositeObserver(log, record), run_info()
    observer.init_start(info.config, seed=1)
    observer.init_stop(info)
    observer.run_start(info)
    during()
    observer.run_stop(status="aborted", samples=0)
    summary = RunSummary(
        status="aborted",
        steps=0,
        samples=0,
        resumed_from_step=0,
        run_seconds=0.0,
        training_seconds=0.0,
        evaluation_seconds=0.0,
        data_wait_seconds=0.0,
    )
    observer.run_end(summary)
    log.close()
    directory.close()
    return json.loads((folder / "run.json").read_text())["clock"]


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_a_run_says_that_its_clock_was_set(tmp_path, monkeypatch, capsys, seconds):
    wall = Wall(monkeypatch)
    clock = run_with(tmp_path / "out", during=lambda: setattr(wall, "offset", seconds))
    assert WORDS in clock["disagreement"]
    assert clock["wall_seconds"] == pytest.approx(seconds, abs=10)
    assert 0 <= clock["monotonic_seconds"] < 10
    assert f"WARNING: {clock['disagreement']}" in capsys.readouterr().out
    complaints = check_log(tmp_path / "out" / "mlperf.log", below_target=True).complaints
    assert any(WORDS in complaint for complaint in complaints)
    assert any("do not decrease" in complaint for complaint in complaints) == (seconds < 0)


def test_a_clock_that_is_left_alone_is_not(tmp_path, capsys):
    clock = run_with(tmp_path / "out", during=lambda: None)
    assert clock["disagreement"] is None
    assert "WARNING" not in capsys.readouterr().out
    stop = RunLog.read(tmp_path / "out" / "mlperf.log").events[-1]
    assert stop.key == "run_stop"
    assert stop.detail("monotonic_seconds") == clock["monotonic_seconds"]
