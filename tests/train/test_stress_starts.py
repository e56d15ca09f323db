"""A short run of the stress program, and its detection of a planted fault."""

import os
import subprocess
import sys

from tests.support.run_ranks import ROOT


def stress(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tests.train.stress_starts", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def test_eight_runs_end_without_faults():
    """Every exit code is correct, no thread is left, and no process is aborted.

    The seed gives every outcome, and failures with and without evaluation ranks.
    """
    ended = stress("--starts", "8", "--busy", "1", "--seed", "281")
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert "8 starts and ends, 0 faults" in ended.stdout
    kinds = {
        line.split(", ")[1].split(":")[0]
        for line in ended.stdout.splitlines()
        if " ranks, " in line
    }
    assert kinds == {"success", "preempted", "failed", "interrupted", "lost"}, ended.stdout


def test_a_remaining_thread_is_detected():
    ended = stress("--starts", "1", "--busy", "0", "--only", "success", "--plant")
    assert ended.returncode == 1 and "FAULT" in ended.stdout
