"""`plan explain`: bars of a measured run and of a record."""

import json

import pytest

from benchmark.__main__ import main


def write_run(folder, *, evaluations=2):
    folder.mkdir()
    steps = [
        {
            "step": i + 1,
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


def explained(folder, tmp_path):
    path = tmp_path / "explained.json"
    assert main(["plan", "explain", str(folder), "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_damaged_and_repeated_lines_change_no_other_step(tmp_path):
    write_run(tmp_path / "run")
    expected = explained(tmp_path / "run", tmp_path)
    path = tmp_path / "run" / "steps.jsonl"
    lines = path.read_text().splitlines()
    late = lines[7].replace("1.5", "99.0").replace("2.5", "99.0")
    infinite = json.dumps(json.loads(lines[3]) | {"step": 77, "step_time_seconds": float("inf")})
    damaged = [lines[4][:30], "[]", "\udcff", '{"step": 5}', "[" * 100_000, infinite]
    text = "\n".join([*lines[:5], *damaged, *lines[5:7], late, *lines[7:]]) + "\n"
    path.write_bytes(text.encode(errors="surrogateescape"))
    found = explained(tmp_path / "run", tmp_path)
    assert (found["num_steps"], found["bars"]) == (20, expected["bars"])
    assert f"{len(damaged)} damaged lines of steps.jsonl are left out" in found["notes"]


def test_the_quietest_steps_are_those_of_a_phase(tmp_path):
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "steps.jsonl"
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    for step in steps[10:]:
        step["step_time_seconds"] += 10
    path.write_text("".join(json.dumps(step) + "\n" for step in steps))
    for number, steps_before in ((1, 0), (2, 10)):
        phase = {"name": f"p{number}", "number": number, "count": 2, "last_step": 10 * number}
        config = {"phase": phase | {"steps_before": steps_before}}
        (tmp_path / "run" / f"config_phase_{number}.json").write_text(json.dumps(config))
    parts = explained(tmp_path / "run", tmp_path)["bars"][0]["seconds"]
    assert parts["compute"] == pytest.approx(6.5)
    assert parts["slow ranks"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("state", "note"),
    [({"continued": True, "clock": {"monotonic_seconds": 3.0}}, "resumed"), ({}, "has not ended")],
)
def test_the_rest_of_a_run_without_one_clock_is_unknown(tmp_path, state, note):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps(state))
    found = explained(tmp_path / "run", tmp_path)
    assert sorted(found["run"]) == ["evaluation", "steps"] and note in found["notes"][-1]


def test_a_damaged_state_is_refused(tmp_path, capsys):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"clock": {')
    assert main(["plan", "explain", str(tmp_path / "run")]) == 2
    assert "run.json is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"measurement": "comm", "figures": {}}', "is a record of `perf comm`"),
        ("{}", "expected an output directory of a run"),
        ("nothing", "expected an output directory of a run"),
        ("[" * 100_000, "expected an output directory of a run"),
        ('{"measurement": "step", "figures": {"passes": {}}}', "no steps"),
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
