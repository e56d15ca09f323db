"""`submit`: ten logs become a directory that the checkers accept; failures are named."""

import json
import os
import re
import shutil
import subprocess

import pytest

from benchmark.__main__ import main
from benchmark.machine import CHECKOUT
from tests.support.demo_logs import write_demo_log, write_description, write_power, write_record

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / ".git").exists(), reason="needs a git checkout: submit packs its tracked files"
)


def head():
    return subprocess.run(
        ["git", "-C", CHECKOUT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """An open-division submission from ten synthetic runs: folder, command and exit code."""
    root = tmp_path_factory.mktemp("demo")
    for index in range(10):
        folder = root / "runs" / f"run_{index}"
        write_demo_log(folder / "mlperf.log", seed=100 + index, minutes=10 + index**2)
        write_record(folder, commit=head())
        write_power(folder)
    system = write_description(root / "two_cores.json")
    (root / "site.sh").write_text("#!/usr/bin/env bash\nexport NODES=1\n")
    command = [
        "submit",
        str(root / "runs"),
        "--system",
        str(system),
        "--out",
        str(root / "out"),
        "--include",
        str(root / "site.sh"),
    ]
    code = main(command)
    return root, command, code


def report(root):
    return next((root / "out").glob("*.checks/*/report.txt")).read_text()


def test_ten_demo_logs_pass_in_the_open_division(demo):
    root, _, code = demo
    text = report(root)
    assert code == 0, text
    for subject in (
        "number of runs",
        "compliance",
        "seeds",
        "one configuration",
        "commit",
        "package checker",
        "repository checker",
        "system description checker",
        "power",
        "summary",
    ):
        assert f"PASS  {subject}: " in text, text
    assert "NOTE  reference convergence: " in text
    assert "FAIL  " not in text


def test_score_and_energy_are_trimmed_means(demo):
    """The energy is 200 W times each run's time: mlperf-logging scales readings to that time."""
    root, _, _ = demo
    minutes, energy = re.search(
        r"PASS  summary: ([0-9.]+) min.*energy ([0-9]+) J", report(root)
    ).groups()
    expected = sum(10 + index**2 for index in range(1, 9)) / 8
    # The events of a synthetic run take some milliseconds.
    assert float(minutes) == pytest.approx(expected, abs=0.01)
    assert float(energy) == pytest.approx(200 * 60 * expected, abs=200 * 60 * 0.01)


def test_the_layout_follows_the_rules(demo):
    root, _, _ = demo
    package = root / "out" / "Example"
    results = package / "results" / "two_cores" / "strong" / "openfold"
    assert sorted(path.name for path in results.glob("*.txt")) == [
        f"result_{index}.txt" for index in range(10)
    ]
    assert sorted(str(path.relative_to(results)) for path in results.rglob("node_*")) == [
        f"power/result_{i}/node_0.txt" for i in range(10)
    ]
    assert (results / "result_3.txt").read_bytes() == (
        root / "runs" / "run_3" / "mlperf.log"
    ).read_bytes()
    system = json.loads((package / "systems" / "two_cores.json").read_text())
    assert system["submitter"] == "Example"
    implementations = package / "benchmarks" / "openfold" / "implementations"
    code = f"openfold_opt_{head()[:12]}"
    assert sorted(path.name for path in implementations.iterdir()) == sorted([code, "two_cores"])
    files = sorted(path.name for path in (implementations / "two_cores").iterdir())
    assert files == sorted(
        [
            "README.md",
            "setup.sh",
            "init_datasets.sh",
            "run_and_time.sh",
            f"two_cores_{code}.json",
            "site.sh",
        ]
    )
    # The temporary directory is removed.
    assert sorted(path.name for path in (root / "out").iterdir()) == ["Example", "Example.checks"]


def test_the_packed_code_is_that_of_the_commit(demo):
    root, _, _ = demo
    code = next(
        (root / "out" / "Example" / "benchmarks" / "openfold" / "implementations").glob(
            "openfold_opt_*"
        )
    )
    packed = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
    listed = subprocess.run(
        ["git", "-C", CHECKOUT, "ls-tree", "-r", "--name-only", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    tracked = {
        name
        for name in listed.stdout.splitlines()
        if not any(part.startswith(".") for part in name.split("/"))
    }
    assert packed == tracked
    assert os.access(code / "run_and_time.sh", os.X_OK)


def test_scripts_of_the_system_start_the_packed_code(demo):
    root, _, _ = demo
    folder = root / "out" / "Example" / "benchmarks" / "openfold" / "implementations" / "two_cores"
    process = subprocess.run(
        [folder / "run_and_time.sh", "--help"], capture_output=True, text=True, check=True
    )
    assert process.stdout.startswith("usage: ./run_and_time.sh")
    assert "--preset demo" in (folder / "run_and_time.sh").read_text()
    assert "node17" not in next(folder.glob("two_cores_*.json")).read_text()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_of_the_system_pass_shellcheck(demo):
    root, _, _ = demo
    folder = root / "out" / "Example" / "benchmarks" / "openfold" / "implementations" / "two_cores"
    process = subprocess.run(["shellcheck", *folder.glob("*.sh")], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


def test_results_are_replaced_only_on_request(demo, capsys):
    root, command, _ = demo
    before = report(root)
    assert main(command) == 2
    assert "--replace" in capsys.readouterr().err
    assert main([*command, "--throughput"]) == 2
    assert "need two systems" in capsys.readouterr().err
    assert report(root) == before


def test_included_files_do_not_replace_ours(demo, tmp_path, capsys):
    root, command, _ = demo
    (tmp_path / "setup.sh").write_text("exit 1\n")
    command = [
        *command[:-2],
        "--out",
        str(tmp_path / "out"),
        "--include",
        str(tmp_path / "setup.sh"),
    ]
    assert main(command) == 2
    assert "already has a file of this name" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_published_logs_pass_in_the_closed_division(shared, tmp_path, capsys):
    logs = next((shared / "facts" / "mlperf_hpc_v3.0_logs").glob("NVIDIA__*__strong"))
    system = tmp_path / "eos_n260.json"
    shutil.copyfile(shared / "facts" / "system_example.json", system)
    code = main(["submit", str(logs), "--system", str(system), "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert code == 0, text
    for subject in ("compliance", "reference convergence", "package checker", "seeds"):
        assert f"PASS  {subject}: " in text, text
    # The published time is 7.51 minutes, and the RCP factor is 1.072.
    assert "PASS  summary: 7.512 min" in text and "normalized by 1.0722" in text
    # Only the review committee may add scaling.json.
    assert not list((tmp_path / "out").rglob("scaling.json"))


def test_published_logs_that_converge_too_fast_fail(shared, tmp_path, capsys):
    logs = sorted(
        next((shared / "facts" / "mlperf_hpc_v3.0_logs").glob("HPE*__strong")).glob("result_*.txt")
    )
    system = tmp_path / "perlmutter.json"
    description = json.loads((shared / "facts" / "system_example.json").read_text())
    system.write_text(
        json.dumps(
            description
            | {"submitter": "HPE+LBNL", "number_of_nodes": "224", "accelerators_per_node": "4"}
        )
    )
    code = main(
        ["submit", *map(str, logs[:-1]), "--system", str(system), "--out", str(tmp_path / "out")]
    )
    text = capsys.readouterr().out
    assert code == 1
    assert "FAIL  number of runs: 9; expected exactly 10" in text
    assert "FAIL  reference convergence: " in text
    assert "FAIL  package checker: ERROR - Incorrect number of files" in text
    assert "failed in number of runs, reference convergence, package checker" in text


def test_a_preset_that_is_not_committed_is_refused(tmp_path, capsys):
    write_demo_log(tmp_path / "run" / "mlperf.log", seed=1)
    write_record(tmp_path / "run", commit=head(), preset="mine")
    system = write_description(tmp_path / "two_cores.json")
    command = ["submit", str(tmp_path / "run"), "--system", str(system)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().out
    assert "FAIL  preset: result_0: preset mine; commit" in text
    assert "has no file benchmark/presets/mine.py" in text
    assert "failed in number of runs, preset" in text


def test_throughput_needs_a_time_to_train(tmp_path, capsys):
    for index in range(10):
        write_demo_log(tmp_path / "runs" / f"run_{index}" / "mlperf.log", seed=index)
    system = write_description(tmp_path / "two_cores.json", number_of_nodes="10")
    code = main(
        [
            "submit",
            str(tmp_path / "runs"),
            "--system",
            str(system),
            "--out",
            str(tmp_path / "out"),
            "--throughput",
        ]
    )
    text = capsys.readouterr().out
    assert code == 1
    assert (
        "FAIL  throughput: the rules accept a throughput result only together with a time to train"
        in text
    )
    assert "result: failed in throughput\n" in text
    assert "PASS  summary: 10 models in" in text
    assert (
        len(
            list(
                (
                    tmp_path / "out" / "Example" / "results" / "two_cores" / "weak" / "openfold"
                ).iterdir()
            )
        )
        == 10
    )


def test_an_output_that_cannot_be_written_is_an_error(tmp_path, capsys):
    write_demo_log(tmp_path / "run" / "mlperf.log", seed=1)
    system = write_description(tmp_path / "two_cores.json")
    assert (
        main(["submit", str(tmp_path / "run"), "--system", str(system), "--out", str(system)]) == 2
    )
    assert "cannot be written" in capsys.readouterr().err


def test_a_submission_that_cannot_be_assembled_writes_nothing(tmp_path, capsys):
    write_demo_log(tmp_path / "run" / "mlperf.log", seed=1)
    write_record(tmp_path / "run", commit="0123456789012345678901234567890123456789")
    system = write_description(tmp_path / "two_cores.json")
    assert (
        main(
            [
                "submit",
                str(tmp_path / "run"),
                "--system",
                str(system),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "does not have the commit 0123456789" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
