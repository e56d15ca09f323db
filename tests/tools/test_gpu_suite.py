"""tools/gpu_suite.sh without a GPU: with a fake Python, and with interrupted parts on a CPU."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUITE = ROOT / "tools/gpu_suite.sh"
PARTS = (
    "agreement",
    "step_eager",
    "step_graphs",
    "kernels",
    "profile",
    "gpu_tests",
    "kernel_tests",
    "loader",
    "kernels_compiled",
)
RECORDS = PARTS[:5]
MAX_FILES = 8

# A Python with a GPU and, depending on variables, xdist. Every measurement writes a record. The
# kernels fail, the eager step runs until SIGINT, and the profile ignores SIGINT.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
"-c import xdist") exit "${NO_XDIST:-0}" ;;
-c*) echo "${HAS_GPU:-True}"; exit 0 ;;
--version) echo Python 3.12; exit 0 ;;
esac
echo "unbuffered ${PYTHONUNBUFFERED:-no}: $*"
record="${!#}"
case "$record" in
*.json) echo '{"figures": {"value": 1}}' >"$record" ;;
esac
case "$record" in
*/kernels.json) touch "$(dirname "$record")/.kernels.json.partial"; exit 3 ;;
*/step_eager.json) trap 'echo got SIGINT; exit 130' INT; while :; do sleep 0.1; done ;;
*/profile.json) trap '' INT; while :; do sleep 0.1; done ;;
esac
"""
# `timeout` with short limits, which logs its arguments.
SHORT_TIMEOUT = """#!/usr/bin/env bash
echo "$1 $2 $3" >>"$TIMEOUT_LOG"
shift 3
PATH="$REAL_PATH" exec timeout --signal=INT --kill-after=1 2 "$@"
"""
# Runs the real interpreter, and interrupts it like `timeout` as soon as its record has a metric or
# its log has a result.
INTERRUPTING = """#!{python}
import json, os, pathlib, signal, subprocess, sys, time
process = subprocess.Popen([{python!r}, *sys.argv[1:]], process_group=0)
log = pathlib.Path(os.readlink("/proc/self/fd/1"))
def has_result():
    if sys.argv[-2] != "--json":
        return any(word in log.read_text() for word in ("PASSED", "SKIPPED"))
    record = pathlib.Path(sys.argv[-1])
    metrics = json.loads(record.read_text())["figures"] if record.exists() else {{}}
    passes = metrics.get("passes", {{}})
    sides = passes.values() if isinstance(passes, dict) else []
    times = [found["ours"]["seconds"] for found in sides]
    prefetch = metrics.get("staging", {{"seconds": {{}}}})["seconds"].values()
    found = [metrics.get(name) for name in ("variants", "cases", "profile", "failures")]
    return any([*times, *prefetch, *found])
if sys.argv[1] == "-m":
    while process.poll() is None and not has_result():
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
sys.exit(process.wait())
"""


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def run_suite(tmp_path):
    """Return a function that runs the suite and returns the process and the output folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = executable(folder / "python", FAKE_PYTHON)
    executable(folder / "timeout", SHORT_TIMEOUT)
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "REAL_PATH": os.environ["PATH"],
        "TIMEOUT_LOG": str(tmp_path / "timeouts"),
    }

    def run(**variables):
        command = [SUITE, tmp_path / "out", python]
        finished = subprocess.run(
            command, env=environment | variables, capture_output=True, text=True, check=False
        )
        return finished, tmp_path / "out"

    return run


def check_files(output):
    """Check the number and the names of the files. Return name -> text of the archive."""
    files = sorted(path.name for path in output.iterdir())
    assert len(files) <= MAX_FILES and all((output / name).is_file() for name in files)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in files), files
    with tarfile.open(output / "details.tar.gz") as archive:
        return {
            pathlib.PurePath(item.name).name: archive.extractfile(item).read().decode()
            for item in archive.getmembers()
            if item.isfile()
        }


@pytest.mark.parametrize("is_background", [False, True], ids=["terminal", "background"])
def test_a_part_that_fails_or_hangs_does_not_affect_the_others(run_suite, is_background):
    # A process that a shell starts in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if is_background else signal.SIG_DFL)
    try:
        finished, output = run_suite()
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished.returncode == 1
    summary = (output / "summary.txt").read_text().splitlines()
    verdicts = dict(line.split(": ", 1) for line in summary if line.split(": ")[0] in PARTS)
    assert list(verdicts) == list(PARTS)
    assert verdicts.pop("kernels").startswith("failed with exit code 3")
    assert verdicts.pop("step_eager").startswith("out of time, interrupted")
    assert verdicts.pop("profile").startswith("out of time, killed")
    assert all(verdict.startswith("passed") for verdict in verdicts.values())
    assert summary[-1] == "failed or out of time: step_eager kernels profile"
    texts = check_files(output)
    for name in RECORDS:
        assert json.loads((output / f"{name}.json").read_text())["figures"] == {"value": 1}
    for name in ("loader", "kernels_compiled"):
        assert json.loads(texts[f"{name}.json"])["figures"] == {"value": 1}
    assert all(texts[f"{name}.txt"].startswith("unbuffered 1: -m ") for name in PARTS)
    assert "got SIGINT" in texts["step_eager.txt"]
    assert "FlexAttention" in texts["kernels.txt"] and " -n " in texts["kernel_tests.txt"]


def test_limits(run_suite, tmp_path):
    shares = [int(value) for value in re.findall(r"\$\(share (\d+)\)", SUITE.read_text())]
    kill_after = int(re.search(r"^KILL_AFTER=(\d+)$", SUITE.read_text(), re.MULTILINE).group(1))
    assert len(shares) == len(PARTS) and sum(shares) + kill_after < 540
    run_suite()
    given = [line.split() for line in (tmp_path / "timeouts").read_text().splitlines()]
    assert len(given) == len(PARTS)
    assert all(line[:2] == ["--signal=INT", f"--kill-after={kill_after}"] for line in given)
    # Unused time goes to later parts, and no part gets more than the sum of the shares up to it.
    limits = [int(line[2]) for line in given]
    assert all(limit <= sum(shares[: number + 1]) for number, limit in enumerate(limits))
    assert limits[-1] > shares[-1]


def test_tests_run_in_one_process_without_xdist(run_suite):
    _, output = run_suite(NO_XDIST="1")
    assert "pytest-xdist is not installed" in (output / "summary.txt").read_text()
    assert " -n " not in check_files(output)["kernel_tests.txt"]


def test_without_a_gpu_the_error_is_one_line(run_suite):
    finished, output = run_suite(HAS_GPU="False")
    assert finished.returncode == 2 and finished.stdout == "" and not output.exists()
    assert len(finished.stderr.splitlines()) == 1 and "sees no GPU" in finished.stderr
    finished, _ = run_suite(HAS_GPU="ModuleNotFoundError: No module named 'torch'")
    assert finished.returncode == 2 and "cannot import torch" in finished.stderr


def test_records_are_not_mixed_with_others(run_suite):
    run_suite()
    finished, _ = run_suite()
    assert finished.returncode == 2 and "is not empty" in finished.stderr


def test_an_interrupted_part_has_a_readable_record(tmp_path):
    python = executable(tmp_path / "python", INTERRUPTING.format(python=sys.executable))
    output = tmp_path / "out"
    finished = subprocess.run(
        [SUITE, "--dry-run-on-cpu", output, python], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    texts = check_files(output)
    records = {name: json.loads((output / f"{name}.json").read_text()) for name in RECORDS}
    records |= {name: json.loads(texts[f"{name}.json"]) for name in ("loader", "kernels_compiled")}
    for name, record in records.items():
        assert record["figures"] and record["machine"] and record["versions"]["torch"], name
    # These parts were not complete when they had their first metric.
    for name in ("agreement", "step_eager"):
        assert not records[name]["is_complete"] and "interrupted" in texts[f"{name}.txt"], name
    assert list(records["agreement"]["figures"]["variants"]) == ["fused bf16"]
    assert len(records["step_eager"]["figures"]["passes"]["0"]["ours"]["seconds"]) == 1
    # No graph can be captured on a CPU, which the record reports.
    assert "needs a GPU" in records["step_graphs"]["figures"]["failures"][0]
    assert "SKIPPED" in texts["gpu_tests.txt"] and "PASSED" in texts["kernel_tests.txt"]


def pretend_gpu(missing, *tests):
    return subprocess.run(
        [sys.executable, "-m", "tests.support.pretended_gpu", missing, *map(str, tests)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_suite_does_not_need_the_packages_of_data_preparation():
    marked = [
        path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()
    ]
    files = [
        *(path for path in marked if path.parent.name != "tools"),
        ROOT / "tests/kernels/triton",
    ]
    missing = "gemmi,kalign,mlperf_logging,matplotlib"
    finished = pretend_gpu(missing, *files, ROOT / "tests/model/test_fused_kernels.py")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_tests_are_collected_on_a_machine_with_a_gpu():
    # The tests of the architecture, more than half of all, read text and use no device.
    finished = pretend_gpu("", ROOT / "tests", f"--ignore={ROOT / 'tests/architecture'}")
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
