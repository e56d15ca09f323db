"""The command on several ranks: replicas, groups that share a chain, lost ranks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.fake_prediction import write_fasta
from tests.support.gloo_ranks import free_port, launch_variables

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(num_ranks: int, fasta: Path, out: Path, *options: str) -> list[tuple[int, str]]:
    """Return exit code and output of each rank."""
    command = [sys.executable, "-m", "tests.support.fake_prediction", str(fasta)]
    command += ["--weights", "w_ptm", "--out", str(out), "--workers", "0", *options]
    port = free_port()
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ
            | launch_variables(rank, num_ranks, port=port)
            | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        texts = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, texts)]


def test_replicas_share_the_chains_and_rank_0_has_the_exit_code(tmp_path):
    chains = {f"c{number}": "MKTAYIAKQR" * (number + 1) for number in range(5)}
    chains["bad"] = "WWNAN" + "A" * 10
    fasta = write_fasta(tmp_path / "in.fasta", chains)
    results = run_ranks(2, fasta, tmp_path / "out", "--replicas", "2")
    assert [code for code, _ in results] == [1, 0], results
    text = results[0][1] + results[1][1]
    assert "replica 0: [1/" in text and "replica 1: [1/" in text
    assert "5 of 6 chains have a structure" in results[0][1]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["num_finished"], summary["num_failed"]) == (5, 1)
    assert [entry["name"] for entry in summary["chains"]] == list(chains)
    assert len(list((tmp_path / "out").glob("*.cif"))) == 5


def test_ranks_that_share_a_chain_write_it_once(tmp_path):
    chains = {"a": "MKTAYIAKQR", "bad": "WWNAN", "broken": "MKTAYI", "short": "M"}
    fasta = write_fasta(tmp_path / "in.fasta", chains)
    results = run_ranks(2, fasta, tmp_path / "out")
    assert [code for code, _ in results] == [1, 0], results
    assert results[1][1] == ""
    assert np.load(tmp_path / "out" / "a_pae.npz")["pae"].shape == (10, 10)
    entries = json.loads((tmp_path / "out" / "summary.json").read_text())["chains"]
    kinds = [entry["error"] and entry["error"]["kind"] for entry in entries]
    assert kinds == [None, "not finite", "features", "does not fit"]
    assert "1 residues cannot be shared between 2 ranks" in entries[3]["error"]["message"]


def test_a_refused_run_ends_on_every_rank(tmp_path):
    fasta = write_fasta(tmp_path / "in.fasta", {"a": "MK:TA"})
    results = run_ranks(2, fasta, tmp_path / "out")
    assert [code for code, _ in results] == [2, 2]
    assert "the sequence has a colon" in results[0][1] and results[1][1] == ""


@pytest.mark.parametrize("sequence", ["WWKILLLAST", "WWERR"])
def test_a_failure_of_one_rank_ends_the_group_and_finished_chains_stay(tmp_path, sequence):
    fasta = write_fasta(tmp_path / "in.fasta", {"a": "MKTAYIAKQRAAAA", "b": sequence})
    results = run_ranks(2, fasta, tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "a.cif").exists() and not (out / "b.cif").exists()
    record = json.loads((out / "b.json").read_text())
    if sequence == "WWERR":
        assert {code for code, _ in results} <= {1, 76} and 1 in {code for code, _ in results}
        assert record["error"] == {
            "kind": "other",
            "message": "RuntimeError: an unexpected error",
        }
    else:
        assert [code for code, _ in results] == [76, -signal.SIGKILL], results
        assert record["error"]["kind"] == "lost rank" and "rank 1" in record["error"]["message"]
        assert "lost rank" in results[0][1]
    assert not list(out.glob("*.tmp"))
