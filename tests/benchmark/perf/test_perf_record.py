"""Records of measurements, and probes that print metrics: interrupted and failing ones."""

import dataclasses
import json
import sys
import types

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf import command
from benchmark.perf.tools.perf_record import RecordFile, from_json, json_key, to_json
from benchmark.perf.tools.probe import run_probe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    value: object
    failures: list[str] = dataclasses.field(default_factory=list)


@pytest.fixture
def measurement(monkeypatch):
    """Return a function that makes `perf loader` run another measure function."""

    def replace(measure):
        module = types.SimpleNamespace(
            add_arguments=lambda parser: None, measure=measure, report=lambda metrics: str(metrics)
        )
        monkeypatch.setattr(command, "_module", lambda name: module)

    return replace


def run(record, capsys):
    code = main(["perf", "loader", "--json", str(record)])
    return code, json.loads(record.read_text()), capsys.readouterr().err


def test_a_finished_measurement_has_a_complete_record(measurement, tmp_path, capsys):
    measurement(lambda args: Value(value=1))
    code, record, _ = run(tmp_path / "record.json", capsys)
    assert code == 0 and record["is_complete"] and record["figures"] == {"value": 1, "failures": []}
    assert record["measurement"] == "loader" and record["machine"] and record["versions"]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_an_interrupted_measurement_keeps_its_metrics(measurement, tmp_path, capsys):
    def measure(args):
        args.record.save(Value(value=1))
        raise KeyboardInterrupt

    measurement(measure)
    code, record, error = run(tmp_path / "record.json", capsys)
    assert code == 130 and not record["is_complete"] and record["figures"]["value"] == 1
    assert "interrupted" in error and "record.json has the metrics so far" in error


def test_a_measurement_interrupted_before_its_first_metric_has_a_record(
    measurement, tmp_path, capsys
):
    def measure(args):
        raise KeyboardInterrupt

    measurement(measure)
    code, record, _ = run(tmp_path / "record.json", capsys)
    assert code == 130 and record["figures"] == {} and record["machine"]


def test_failures_are_in_the_record_and_set_the_exit_code(measurement, tmp_path, capsys):
    measurement(lambda args: Value(value=1, failures=["no graph"]))
    code, record, error = run(tmp_path / "record.json", capsys)
    assert code == 1 and record["is_complete"] and record["figures"]["value"] == 1
    assert "FAILED: no graph" in error


def test_a_record_is_replaced_atomically(tmp_path):
    path = tmp_path / "record.json"
    record = RecordFile(path, measurement="step")
    record.save(Value(value=1))
    with pytest.raises(TypeError):
        record.save(Value(value=object()))
    assert json.loads(path.read_text())["figures"]["value"] == 1


def test_a_record_needs_an_existing_folder(tmp_path):
    with pytest.raises(BenchmarkError, match="does not exist; create it first"):
        RecordFile(tmp_path / "no" / "record.json", measurement="step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    value: int


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Return a function that runs a script as a probe with the settings {"value": 2}."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(script):
        (tmp_path / "test_probe.py").write_text(f"import json, sys, time\n{script}")
        return run_probe("test_probe", ProbeSettings(value=2), name="the test probe")

    return start


def test_a_probe_yields_the_objects_that_it_prints(probe, capsys):
    script = (
        "print('a note')\nfor i in range(2): print(json.dumps({'i': i} | json.loads(sys.argv[1])))"
    )
    assert list(probe(script)) == [{"i": 0, "value": 2}, {"i": 1, "value": 2}]
    assert "a note" in capsys.readouterr().err


def test_a_failure_is_raised_after_the_objects_before_it(probe, capsys):
    objects = probe("print('{}', flush=True)\nraise RuntimeError('stream is capturing')")
    assert next(objects) == {}
    with pytest.raises(
        BenchmarkError, match="test probe ended with exit code 1: RuntimeError: stream is cap"
    ):
        next(objects)
    assert "Traceback" in capsys.readouterr().err


def test_closing_the_iterator_ends_the_probe(probe, tmp_path):
    pid_file = tmp_path / "pid"
    objects = probe(
        f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
        "print('{}', flush=True)\ntime.sleep(600)"
    )
    next(objects)
    objects.close()
    # close() waits for the process, so its PID is free.
    assert (
        not (tmp_path.__class__("/proc") / pid_file.read_text()).exists() or sys.platform != "linux"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    seconds: list[float]
    peak_bytes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    preset: str
    sides: dict[str, list[Side]] = json_key("all sides")
    best: Side | None
    failures: list[str] = dataclasses.field(default_factory=list)


def test_metrics_are_read_from_the_json_of_their_record():
    side = Side(seconds=[1.0, 2.0], peak_bytes=3)
    metrics = Comparison(preset="demo", sides={"ours": [side], "none": []}, best=None)
    metrics_json = json.loads(json.dumps(to_json(metrics)))
    assert from_json(Comparison, metrics_json) == metrics
    assert from_json(Comparison, {**metrics_json, "best": {"seconds": []}}).best == Side(seconds=[])


def test_metrics_have_no_keys_for_optional_fields_without_a_value():
    metrics = Comparison(preset="demo", sides={"ours": [Side(seconds=[1.0])]}, best=None)
    assert to_json(metrics) == {
        "preset": "demo",
        "all sides": {"ours": [{"seconds": [1.0]}]},
        "best": None,
        "failures": [],
    }


@pytest.mark.parametrize("sides", [5, {"ours": 5}, {"ours": [5]}])
def test_metrics_of_other_types_are_rejected(sides):
    with pytest.raises(ValueError, match="expected "):
        from_json(Comparison, {"preset": "demo", "all sides": sides, "best": None})


@pytest.mark.parametrize("change", [{"preset": None}, {"unknown": 1}])
def test_metrics_with_other_fields_are_rejected(change):
    metrics = {"preset": "demo", "all sides": {}, "best": None} | change
    if metrics["preset"] is None:
        del metrics["preset"]
    with pytest.raises(ValueError, match="expected the fields"):
        from_json(Comparison, metrics)
