"""`plan explain`: bars of a measured run and of a record."""

import json

import pytest

from benchmark.__main__ import main


def write_run(folder, *, evaluations=2):
    folder.mkdir()
    steps = [
        {
            "num_recycling_iterations": i % 2,
            "step_time_seconds": 1 + i % 2 + late,
            "data_wait_seconds": wait,
        }
        for i in range(20)
        for late, wait in [(0.5 if i == 7 else 0.1, 0.1)]
    ]
    (folder / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (folder / "evaluations.jsonl").write_text('{"seconds": 5.0}\n' * evaluations)
    (folder / "run.json").write_text(json.dumps({"clock": {"monotonic_seconds": 60.0}}))


def test_parts_of_a_run_add_up(tmp_path):
    write_run(tmp_path / "run")
    path, picture = tmp_path / "explained.json", tmp_path / "explained.png"
    arguments = [str(tmp_path / "run"), "--json", str(path), "--png", str(picture)]
    assert main(["plan", "explain", *arguments]) == 0
    value = json.loads(path.read_text())
    parts = value["bars"][0]["seconds"]
    assert parts["compute"] == pytest.approx(1.5)
    assert parts["loader"] == pytest.approx(0.1)
    assert parts["slow ranks"] == pytest.approx(0.02)
    assert value["run"] == {
        "steps": pytest.approx(32.4),
        "evaluation": 10.0,
        "start and rest": pytest.approx(17.6),
    }
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_record_of_perf_step_is_explained(tmp_path, capsys):
    path = tmp_path / "record.json"
    figures = {
        "passes": {"0": {"ours": {"seconds": [1.0, 1.2]}}},
        "flops": {"0": 10**12},
        "matmul_flops_per_second": 2e12,
    }
    path.write_text(json.dumps({"measurement": "step", "figures": figures}))
    assert main(["plan", "explain", str(path)]) == 0
    assert "500.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"measurement": "comm", "figures": {}}', "is a record of `perf comm`"),
        ("{}", "expected an output directory of a run"),
        ("nothing", "expected an output directory of a run"),
    ],
)
def test_other_files_are_refused(tmp_path, capsys, text, message):
    path = tmp_path / "record.json"
    path.write_text(text)
    assert main(["plan", "explain", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_directory_without_steps_is_refused(tmp_path, capsys):
    assert main(["plan", "explain", str(tmp_path)]) == 2
    assert "no steps in steps.jsonl" in capsys.readouterr().err
