"""`benchmark status` of the directory of slurm/full_training.sh."""

import os
import pathlib

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.run.job_chain import phase_state, read_chain, read_queue
from benchmark.run.state_file import RunState
from tests.support.phased_run import write_config, write_reports, write_state

COMMAND = "cd /work && slurm/full_training.sh --preset two"


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """Return the directory of a chain of two jobs, and a squeue that prints the file `queue`."""
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin/squeue"
    squeue.write_text(f"#!/bin/sh\ncat '{tmp_path}/queue' 2>/dev/null\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    folder = tmp_path / "chain"
    folder.mkdir()
    (folder / "phases.txt").write_text("first small 2\nsecond /configs/large.sh 4\n")
    (folder / "jobs.txt").write_text(
        "first 9 2026-01-01\nsecond 10 2026-01-01\nfirst 11 2026-01-02\n"
    )
    (folder / "command.txt").write_text(COMMAND + "\n")
    return folder


def queue(chain, text):
    (chain.parent / "queue").write_text(text)


def start_run(chain, status, *, last_step=40, **changes):
    run = chain / "run_1"
    run.mkdir(exist_ok=True)
    write_config(run, 1)
    write_reports(run, last_step)
    write_state(run, status, phase="first", **changes)
    return run


def status(chain, capsys):
    assert main(["status", str(chain)]) == 0
    return capsys.readouterr().out.splitlines()


def test_before_the_first_job_starts(chain, capsys):
    queue(chain, "11 PENDING Resources\n10 PENDING Dependency\n")
    assert status(chain, capsys) == [
        "not started: no job has started the run",
        "phase first   not started; job 11 PENDING (Resources); 2 ranks, small",
        "phase second  not started; job 10 PENDING (Dependency); 4 ranks, /configs/large.sh",
    ]


def test_between_two_jobs(chain, capsys):
    start_run(chain, "phase complete", completed_phases=["first"])
    queue(chain, "11 COMPLETED None\n10 RUNNING None\n")
    lines = status(chain, capsys)
    assert lines[:3] == [
        "phase complete: first (1 of 2) ended after step 40 of 100, lDDT-Ca 0.4000",
        "phase first   complete; job 11 COMPLETED; 2 ranks, small",
        "phase second  not started; job 10 RUNNING; 4 ranks, /configs/large.sh",
    ]
    # The running job continues the run.
    assert not any(line.startswith("continue") for line in lines)


def test_stopped_chain_names_its_command(chain, capsys):
    start_run(chain, "preempted", last_step=30)
    lines = status(chain, capsys)
    assert lines[0] == "preempted: stopped by a signal after step 30 of 100, with a checkpoint"
    assert lines[1] == "phase first   preempted; job 11 not in the queue; 2 ranks, small"
    assert lines[-1] == f"continue     {COMMAND}"
    queue(chain, "10 FAILED NonZeroExitCode\n")
    assert status(chain, capsys)[-1] == f"continue     {COMMAND}"


def test_submission_that_ended_before_its_first_job(chain, capsys):
    (chain / "jobs.txt").unlink()
    lines = status(chain, capsys)
    assert lines[1] == "phase first   not started; not submitted; 2 ranks, small"
    assert lines[-1] == f"continue     {COMMAND}"


def test_finished_chain_has_no_command(chain, capsys):
    start_run(chain, "finished", outcome="success")
    lines = status(chain, capsys)
    assert [line.split(";")[0] for line in lines[1:3]] == [
        "phase first   complete",
        "phase second  complete",
    ]
    assert not any(line.startswith("continue") for line in lines)


@pytest.mark.parametrize(
    ("changes", "is_alive", "expected"),
    [
        ({"status": "running", "phase": "a"}, True, "running"),
        ({"status": "running", "phase": "a"}, False, "killed"),
        ({"status": "running", "phase": "b"}, True, "not started"),
        ({"status": "running", "phase": "b", "completed_phases": ("a",)}, True, "complete"),
        ({"status": "finished", "phase": "a", "outcome": "target not reached"}, False, None),
    ],
)
def test_state_of_a_phase(changes, is_alive, expected):
    state = RunState(identity={}, resumable=True, **changes)
    assert phase_state("a", state, is_alive=is_alive) == (expected or changes["outcome"])


def test_damaged_files_are_refused(chain, capsys):
    (chain / "phases.txt").write_text("first small many\n")
    with pytest.raises(BenchmarkError, match="expected the files of slurm/full_training.sh"):
        read_chain(chain)
    assert main(["status", str(chain)]) == 2


def test_without_squeue_nothing_is_known(chain, monkeypatch):
    monkeypatch.setenv("PATH", str(pathlib.Path("/nowhere")))
    assert read_queue(["11"]) == {}
    assert read_queue([]) == {}
