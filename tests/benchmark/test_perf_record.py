"""Records of measurements, and processes that report as they go: interrupted and failing ones."""

import json
import sys
import types

import pytest

from benchmark.__main__ import main
from benchmark.errors import BenchmarkError
from benchmark.perf import command
from benchmark.perf.probe import run_probe
from benchmark.perf.record import RecordFile


@pytest.fixture
def measurement(monkeypatch):
    """Makes a measurement of a function of args; `perf loader` runs it."""

    def plant(measure):
        module = types.SimpleNamespace(
            add_arguments=lambda parser: None, measure=measure, report=lambda metrics: str(metrics)
        )
        monkeypatch.setattr(command, "_module", lambda name: module)

    return plant


def run(record, capsys):
    code = main(["perf", "loader", "--json", str(record)])
    return code, json.loads(record.read_text()), capsys.readouterr().err


def test_a_finished_measurement(measurement, tmp_path, capsys):
    measurement(lambda args: {"value": 1})
    code, record, _ = run(tmp_path / "record.json", capsys)
    assert code == 0 and record["is_complete"] and record["figures"] == {"value": 1}
    assert record["measurement"] == "loader" and record["machine"] and record["versions"]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_an_interrupted_measurement_keeps_its_figures(measurement, tmp_path, capsys):
    def measure(args):
        args.record.save({"value": 1})
        raise KeyboardInterrupt

    measurement(measure)
    code, record, error = run(tmp_path / "record.json", capsys)
    assert code == 130 and not record["is_complete"] and record["figures"] == {"value": 1}
    assert "interrupted" in error and "record.json has the figures so far" in error


def test_a_measurement_interrupted_before_its_first_figure_has_a_record(
    measurement, tmp_path, capsys
):
    def measure(args):
        raise KeyboardInterrupt

    measurement(measure)
    code, record, _ = run(tmp_path / "record.json", capsys)
    assert code == 130 and record["figures"] == {} and record["machine"]


def test_what_failed_is_in_the_record_and_in_the_exit_code(measurement, tmp_path, capsys):
    measurement(lambda args: {"value": 1, "failures": ["no graph"]})
    code, record, error = run(tmp_path / "record.json", capsys)
    assert code == 1 and record["is_complete"] and record["figures"]["value"] == 1
    assert "FAILED: no graph" in error


def test_a_record_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "record.json"
    record = RecordFile(path, measurement="step")
    record.save({"value": 1})
    with pytest.raises(TypeError):
        record.save({"value": object()})
    assert json.loads(path.read_text())["figures"] == {"value": 1}


def test_a_record_needs_a_folder(tmp_path):
    with pytest.raises(BenchmarkError, match="does not exist; make it first"):
        RecordFile(tmp_path / "no" / "record.json", measurement="step")


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Runs a script as a probe that gets {"value": 2}."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(script):
        (tmp_path / "planted_probe.py").write_text(f"import json, sys, time\n{script}")
        return run_probe("planted_probe", {"value": 2}, name="the planted probe")

    return start


def test_objects_come_as_they_are_printed(probe, capsys):
    script = (
        "print('a note')\nfor i in range(2): print(json.dumps({'i': i} | json.loads(sys.argv[1])))"
    )
    assert list(probe(script)) == [{"i": 0, "value": 2}, {"i": 1, "value": 2}]
    assert "a note" in capsys.readouterr().err


def test_a_failure_comes_after_the_objects_before_it(probe, capsys):
    found = probe("print('{}', flush=True)\nraise RuntimeError('stream is capturing')")
    assert next(found) == {}
    with pytest.raises(
        BenchmarkError, match="planted probe ended with exit code 1: RuntimeError: stream is cap"
    ):
        next(found)
    assert "Traceback" in capsys.readouterr().err


def test_an_abandoned_probe_ends(probe, tmp_path):
    mark = tmp_path / "mark"
    found = probe(
        f"import os; open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
        "print('{}', flush=True)\ntime.sleep(600)"
    )
    next(found)
    found.close()
    # close() waited for the process, so its number is free
    assert not (tmp_path.__class__("/proc") / mark.read_text()).exists() or sys.platform != "linux"
