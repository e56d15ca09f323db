"""`plan local`: predictions are written before anything is measured."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.headline import headline
from benchmark.plan import local_command, local_runs
from benchmark.plan.local_runs import PhaseSeconds, phase_seconds, run_ranks
from benchmark.plan.systems import Link
from tests.support.cpu_records import KINDS, cpu_system

SYSTEM = cpu_system(
    collectives=dict.fromkeys(KINDS, Link(latency_seconds=3e-4, bytes_per_second=1e9))
)


def row(step, seconds):
    return {"step": step, "step_time_seconds": seconds, "data_wait_seconds": 1e-4}


def test_the_first_steps_of_a_phase_do_not_count():
    rows = [row(n, 9.0 if n <= 5 or 20 < n <= 25 else 0.1 * (1 + (n > 20))) for n in range(1, 41)]
    found = phase_seconds(rows, ["one", "two"], steps=20)
    assert (found["one"].quiet, found["two"].median) == (0.1, 0.2)
    with pytest.raises(BenchmarkError, match="phase two has 0 steps"):
        phase_seconds(rows[:20], ["one", "two"], steps=20)


def test_predictions_are_saved_before_the_first_run(tmp_path, monkeypatch, capsys):
    record, saved = tmp_path / "record.json", []

    def measure(base, phases, **options):
        saved.append(json.loads(record.read_text())["figures"]["predicted"])
        return {name: PhaseSeconds(quiet=0.2, median=0.3, data_wait=0.0) for name in phases}

    monkeypatch.setattr(local_command, "_calibrate", lambda folder: SYSTEM)
    monkeypatch.setattr(local_command, "sample_seconds", lambda config, data_dir: 0.01)
    monkeypatch.setattr(local_command, "measure_run", measure)
    options = ["--data-dir", str(tmp_path), "--rounds", "2", "--json", str(record)]
    assert main(["plan", "local", *options]) == 0
    value = json.loads(record.read_text())
    figures = value["figures"]
    assert value["is_complete"] and len(saved) == 4
    assert all(each == figures["predicted"] for each in saved)
    assert [len(each) for each in figures["measured"]] == [2, 2]
    assert figures["predicted"][0]["parts"]["loader"] == 0.01
    plan = figures["predicted"][-1]
    error = sum(plan["parts"].values()) / 0.2 - 1
    assert f"demo_dap2 training {error:+.0%}" in headline(value["measurement"], figures)
    assert f"{error:+.1%}" in capsys.readouterr().out


def test_too_few_steps_are_refused(tmp_path, capsys):
    assert main(["plan", "local", "--data-dir", str(tmp_path), "--steps", "5"]) == 2
    assert "expected at least 1 and 20" in capsys.readouterr().err


def test_a_failed_rank_is_reported(tmp_path):
    with pytest.raises(BenchmarkError, match="a run ended with 2:\n(.|\n)*nonsense"):
        run_ranks(["plan", "train", "--preset", "nonsense", "--system", "h100_sxm"], what="a run")


def test_the_short_preset_has_the_phases_of_its_base(tmp_path, monkeypatch):
    from benchmark.presets import build_preset

    def run(arguments, *, what):
        path = arguments[arguments.index("--preset") + 1]
        config = build_preset(path)
        assert [(phase.name, phase.steps) for phase in config.phases] == [
            (name, 20) for name in ("short_crops", "crops", "chains", "violations")
        ]
        assert config.max_steps == 80
        output = tmp_path / "folder" / "run"
        output.mkdir()
        rows = [row(n, 0.1) for n in range(1, 81)]
        (output / "steps.jsonl").write_text("\n".join(map(json.dumps, rows)))

    monkeypatch.setattr(local_runs, "run_ranks", run)
    names = ["short_crops", "crops", "chains", "violations"]
    found = local_runs.measure_run(
        "demo", names, steps=20, data_dir=tmp_path, folder=tmp_path / "folder"
    )
    assert found["chains"].median == 0.1
