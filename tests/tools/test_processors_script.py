"""tools/test_processors.sh with stubs in place of the test suite and of Python."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUITE = """#!/bin/bash
echo "suite $ATEN_CPU_CAPABILITY,$MKL_CBWR: $*"
[ "$ATEN_CPU_CAPABILITY" != "$FAILING" ]
"""
PYTHON = """#!/bin/bash
[ "$1" = -c ] && { echo "torch stub"; exit; }
echo "python $*"
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the script and stubs of what it calls."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "test_processors.sh", tmp_path / "tools")
    environment = f"prepare_environment() {{ PYTHON={tmp_path}/python; }}\n"
    (tmp_path / "tools" / "environment.sh").write_text(environment)
    for name, text in (("run_tests.sh", SUITE), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run_script(checkout, *arguments, **variables):
    environment = {"PATH": os.environ["PATH"], "FAILING": "none", **variables}
    return subprocess.run(
        [checkout / "tools" / "test_processors.sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def results_of(shown) -> dict[str, str]:
    """The outcome of each variant, from the lines of the summary."""
    lines = [line.split() for line in shown.stdout.splitlines()]
    outcomes = ("passed", "FAILED", "skipped")
    found = {}
    for words in lines:
        outcome = next((word for word in words if word in outcomes), None)
        if outcome is not None:
            found[" ".join(words[: words.index(outcome)])] = outcome
    return found


def test_all_variants_run(checkout):
    shown = run_script(checkout, "tests/model", "-q", OPENFOLD_SHARED="/golden_parent")
    assert shown.returncode == 0, shown.stderr
    assert "suite default,: tests/model -q\n" in shown.stdout
    assert "suite ,COMPATIBLE: tests/model -q\n" in shown.stdout
    for threads in (1, 2):
        directories = "/golden_parent/golden/model_tiny /golden_parent/golden/model_quirks"
        command = f"python -m benchmark parity --threads {threads} {directories}"
        assert command in shown.stdout
    results = results_of(shown)
    assert {"ATEN_CPU_CAPABILITY=default", "MKL_CBWR=COMPATIBLE"} <= set(results)
    assert {"parity, 1 thread(s)", "parity, 2 thread(s)"} <= set(results)
    assert set(results.values()) == {"passed"}


def test_a_failing_variant_does_not_stop_the_others(checkout):
    shown = run_script(checkout, "--out", checkout / "kept.txt", FAILING="default")
    assert shown.returncode == 1
    results = results_of(shown)
    assert results.pop("ATEN_CPU_CAPABILITY=default") == "FAILED"
    assert results["MKL_CBWR=COMPATIBLE"] == "passed"
    assert results["parity, 2 thread(s)"] == "skipped"
    assert "1 of " in shown.stderr and "failed" in shown.stderr
    kept = (checkout / "kept.txt").read_text()
    assert "ATEN_CPU_CAPABILITY=default      FAILED" in kept and "torch stub" in kept
    assert kept in shown.stdout


def test_help_and_wrong_arguments(checkout):
    shown = run_script(checkout, "--help")
    assert shown.returncode == 0 and shown.stdout.startswith("usage: tools/test_processors.sh")
    shown = run_script(checkout, "--out")
    assert shown.returncode == 2 and "--out needs the name of a file" in shown.stderr
