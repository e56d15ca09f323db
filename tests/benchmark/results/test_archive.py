"""`results`: the committed table is current, archived runs are anonymous, bad records are named."""

import json
import re
import subprocess

import pytest

from benchmark.__main__ import main
from benchmark.mlperf.check import check_log
from benchmark.perf.command import MEASUREMENTS
from benchmark.perf.tools.headline import headline
from benchmark.results.archive import RUN_FILES, format_table
from benchmark.results.archive_run import REMOVED
from benchmark.results.records_command import RESULTS
from tests.benchmark.mlperf.test_check import open_log

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECORD = {
    "measurement": "loader",
    "date": "2026-11-21T03:09:28+00:00",
    "command": "python -m benchmark perf loader",
    "machine": {
        "processor": "chip",
        "cpu_count": 2,
        "memory_bytes": 2**34,
        "accelerator_count": 0,
        "accelerator": "none",
    },
    "versions": {"commit": COMMIT + "-dirty", "torch": "2.13.0"},
    "figures": {
        "loaders": {
            "in order": {
                "window": 0,
                "stall_share": 0.35,
                "seconds": 10.0,
                "longest_wait_seconds": 0.5,
                "largest_reorder_distance": 0,
                "largest_lateness": 0,
                "delivered": 100,
                "delivered_twice": 0,
                "missing": 0,
            }
        }
    },
}


def test_the_committed_table_is_current():
    assert (RESULTS / "TABLE.md").read_text(encoding="utf-8") == format_table(RESULTS), (
        "regenerate it with python -m benchmark results"
    )


@pytest.mark.parametrize(
    "path", sorted((RESULTS / "measured").glob("*.json")), ids=lambda path: path.stem
)
def test_every_archived_measurement_has_a_headline(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["measurement"] in {*MEASUREMENTS, "plan_local"}
    assert re.search(r"\d", headline(record["measurement"], record["figures"]))


@pytest.mark.parametrize("folder", sorted((RESULTS / "runs").glob("*")), ids=lambda path: path.name)
def test_archived_runs_comply_and_have_no_local_paths(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(RUN_FILES)
    assert check_log(folder / "mlperf.log").passed
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["machine"]["host"] == REMOVED
    for name in RUN_FILES:
        assert not re.search(
            r'"/|(?<![\w.])/(tmp|home|work|root)/', (folder / name).read_text(encoding="utf-8")
        ), name


@pytest.mark.parametrize("folder", sorted((RESULTS / "runs").glob("*")), ids=lambda path: path.name)
def test_the_commit_of_an_archived_run_is_in_the_history(folder):
    commit = json.loads((folder / "config.json").read_text(encoding="utf-8"))["versions"]["commit"]
    git = ["git", "-C", str(RESULTS)]
    shallow = subprocess.run(
        [*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True
    )
    if shallow.stdout.strip() != "false":
        pytest.skip("needs a git checkout with the complete history")
    assert (
        subprocess.run(
            [*git, "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True
        ).returncode
        == 0
    )


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results" / "measured").mkdir(parents=True)
    (tmp_path / "results" / "measured" / "one.json").write_text(json.dumps(RECORD))
    return tmp_path / "results"


@pytest.fixture
def finished_run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = open_log()
    lines[-1] = lines[-1].replace('"time_ms": 1,', '"time_ms": 60001,')
    (folder / "mlperf.log").write_text("\n".join(lines) + "\n")
    (folder / "run.json").write_text(
        json.dumps({"status": "finished", "continued": False, "outcome": "success"})
    )
    config = {
        "preset": "demo",
        "seed": 3,
        "number_of_ranks": 2,
        "number_of_nodes": 1,
        "init_checkpoint_sha256": None,
    }
    config |= {
        "data_checksum": "f" * 64,
        "config": {"parallel": {"dap_size": 2}},
        "versions": {"commit": COMMIT},
    }
    config |= {"machine": RECORD["machine"] | {"host": "secret-host"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def add(results, run, *more):
    return main(
        [
            "results",
            "--results-dir",
            str(results),
            "--add",
            str(run),
            "--name",
            "demo_seed_3",
            *more,
        ]
    )


def test_the_table_is_written_and_an_old_one_is_detected(results, capsys):
    arguments = ["results", "--results-dir", str(results)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    text = (results / "TABLE.md").read_text()
    assert "in order 35.0%" in text
    assert "0123456789 (dirty)" in text
    change(results / "measured" / "one.json", date="2027-01-01")
    assert main([*arguments, "--check"]) == 1
    assert (results / "TABLE.md").read_text() == text


def test_a_run_is_archived(results, finished_run):
    assert add(results, finished_run) == 0
    archived = results / "runs" / "demo_seed_3"
    assert sorted(path.name for path in archived.iterdir()) == sorted(RUN_FILES)
    assert "secret-host" not in (archived / "config.json").read_text()
    command = (
        "torchrun --nproc-per-node 2 -m benchmark run --preset demo --seed 3 "
        "--data-dir DATA_DIR --output-dir OUTPUT_DIR"
    )
    assert (archived / "command.txt").read_text() == command + "\n"
    row = next(
        line
        for line in (results / "TABLE.md").read_text().splitlines()
        if line.startswith("| [demo_seed_3]")
    )
    assert (
        "| demo, seed 3 |" in row
        and "| success |" in row
        and "| 1.000 |" in row.replace("   ", " ")
    )
    assert command in (results / "TABLE.md").read_text()


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("run.json", {"status": "running"}, "'running', expected 'finished'"),
        ("run.json", {"continued": True}, "was resumed"),
        (
            "config.json",
            {"versions": {"commit": COMMIT + "-dirty"}},
            "expected 40 hexadecimal digits",
        ),
        (
            "config.json",
            {"data_dir": "/somewhere/else"},
            "contains a path of this machine, /somewhere/else",
        ),
        ("config.json", {"preset": "on secret-host"}, "contains the name of this host"),
        ("config.json", {"number_of_nodes": 2}, "--command"),
    ],
)
def test_runs_that_others_cannot_repeat_are_refused(
    results, finished_run, capsys, name, fields, expected
):
    change(finished_run / name, **fields)
    assert add(results, finished_run) == 2
    assert expected in capsys.readouterr().err
    assert not (results / "runs").exists()


def test_a_log_that_does_not_comply_is_refused(results, finished_run, capsys):
    (finished_run / "mlperf.log").write_text(
        "\n".join(open_log(accuracy=0.7, status="aborted")) + "\n"
    )
    assert add(results, finished_run) == 2
    assert "does not comply" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "lacks measurement, date"),
        ("[]", "lacks measurement, date"),
        (json.dumps(RECORD | {"machine": [], "versions": {}}), "lacks machine.processor"),
        (json.dumps(RECORD | {"versions": {}}), "lacks versions.commit;"),
    ],
)
def test_a_damaged_record_is_named(results, capsys, text, expected):
    (results / "measured" / "damaged.json").write_text(text)
    assert main(["results", "--results-dir", str(results)]) == 2
    error = capsys.readouterr().err
    assert "damaged.json" in error and expected in error


def test_an_archived_run_without_its_files_is_named(results, capsys):
    (results / "runs" / "partial").mkdir(parents=True)
    assert main(["results", "--results-dir", str(results)]) == 2
    assert "lacks mlperf.log, config.json, command.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "lacks preset, seed"),
        ("{", "does not have a complete run"),
        ("[" * 100_000, "does not have a complete run"),
        ('{"preset": "demo"}', "lacks seed"),
    ],
)
def test_an_archived_run_with_a_damaged_configuration_is_named(
    results, finished_run, capsys, text, expected
):
    assert add(results, finished_run) == 0
    (results / "runs" / "demo_seed_3" / "config.json").write_text(text)
    assert main(["results", "--results-dir", str(results), "--check"]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"), [("[]", "is not a JSON object"), ('{"versions": {}}', "lacks preset")]
)
def test_a_run_without_the_keys_to_repeat_it_is_not_archived(
    results, finished_run, capsys, text, expected
):
    (finished_run / "config.json").write_text(text)
    assert add(results, finished_run) == 2
    assert expected in capsys.readouterr().err and not (results / "runs").exists()


def test_a_run_needs_a_valid_name(results, finished_run, capsys):
    assert main(["results", "--results-dir", str(results), "--add", str(finished_run)]) == 2
    assert (
        main(
            ["results", "--results-dir", str(results), "--add", str(finished_run), "--name", "../x"]
        )
        == 2
    )
    assert "expected lower-case letters" in capsys.readouterr().err
    assert not (results / "x").exists()


def test_an_unknown_measurement_has_a_placeholder_headline():
    assert headline("weather", {}) == headline("step", {}) == "see the record"
