"""The command: a run that is killed leaves no half-written file, and a rerun completes it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import gemmi
import pytest

from tests.support.fake_prediction import sequence, ten_chains, times_of, write_fasta

ROOT = Path(__file__).resolve().parents[2]


def start(fasta: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.support.fake_prediction", str(fasta)]
    return subprocess.Popen(
        [*command, "--weights", "w_ptm", "--out", str(out), *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_killed_run_is_completed_by_a_rerun(run, tmp_path, number, code):
    chains = ten_chains(bad="WWSLEEP" + "A" * 13)
    fasta = write_fasta(tmp_path / "in.fasta", chains)
    process = start(fasta, tmp_path / "out", "--workers", "1")
    try:
        for line in process.stdout:
            if line == "sleeping\n":
                break
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == code, error
    out = tmp_path / "out"
    if number != signal.SIGKILL:
        assert not list(out.glob("*.tmp")) and "finished chains stay" in error
    for name in ("chain4.cif", "chain4_pae.npy", "chain4.json"):
        assert not (out / name).exists()
    num_before = len(times_of(out))
    assert 0 < num_before < 10
    write_fasta(fasta, ten_chains(bad=sequence(4)))
    assert run(ten_chains(bad=sequence(4)))[0] == 0
    assert len(times_of(out)) == 10 and not list(out.glob("*.tmp"))
    for path in out.glob("*.cif"):
        gemmi.read_structure(str(path))
