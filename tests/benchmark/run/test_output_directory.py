"""Live, dead and finished output directories."""

import dataclasses
import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.run.output_directory import OutputDirectory, describe_restart
from benchmark.run.state_file import Failure

ROOT = pathlib.Path(__file__).resolve().parents[3]
IDENTITY = {"preset": "demo", "data": "abc"}
FAILURE = Failure(kind="other", type="OSError", message="broken", step=None, rank=0)
ERROR = dataclasses.asdict(FAILURE) | {"sample_ids": []}

HOLDER = """
import sys, time
from pathlib import Path
from benchmark.run.output_directory import OutputDirectory
identity = {"preset": "demo", "data": "abc"}
held = OutputDirectory(Path(sys.argv[1]), identity=identity, seed=5, new_seed=9)
if sys.argv[2] == "running":
    held.mark_running()
print("held", flush=True)
time.sleep(60)
"""


def take(path, *, seed=None, new_seed=9, identity=IDENTITY):
    return OutputDirectory(path, identity=identity, seed=seed, new_seed=new_seed)


def start_holder(path, status="running"):
    """Another process that holds the directory until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), status],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline().strip() == "held"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def die_in(path, status="running"):
    kill(start_holder(path, status))


def test_fresh_directory(tmp_path):
    directory = take(tmp_path / "a" / "b")
    assert not directory.continued
    assert directory.seed == 9
    assert directory.log_path.name == "mlperf.log"
    assert json.loads((directory.path / "run.json").read_text())["continued"] is False
    directory.close()


def test_a_restart_resumes_only_from_a_checkpoint(tmp_path):
    assert describe_restart(tmp_path).startswith("there is no checkpoint yet")
    directory = take(tmp_path)
    assert describe_restart(tmp_path).endswith("the same command starts from the beginning")
    directory.mark_running()
    directory.mark_failed(FAILURE)
    assert describe_restart(tmp_path) == "the same command resumes from the newest checkpoint"


def test_given_seed_wins(tmp_path):
    assert take(tmp_path, seed=3).seed == 3


def test_live_run_refuses_another(tmp_path):
    process = start_holder(tmp_path)
    try:
        with pytest.raises(BenchmarkError, match=f"in use by a live run .process {process.pid} on"):
            take(tmp_path)
    finally:
        kill(process)


def test_dead_run_is_continued_with_its_seed(tmp_path):
    die_in(tmp_path)
    directory = take(tmp_path)
    assert directory.continued
    assert directory.seed == 5
    assert directory.log_path.name == "mlperf_continued_1.log"
    # until its training begins it is not counted: it may yet be refused
    assert json.loads((tmp_path / "run.json").read_text())["num_resumptions"] == 0
    directory.mark_running()
    state = json.loads((tmp_path / "run.json").read_text())
    assert (
        state["continued"] is True
        and state["status"] == "running"
        and state["num_resumptions"] == 1
    )


def test_second_resumption_writes_another_log(tmp_path):
    die_in(tmp_path)
    die_in(tmp_path)
    assert take(tmp_path).log_path.name == "mlperf_continued_2.log"


def test_death_before_the_clock_started_leaves_nothing_to_continue(tmp_path):
    die_in(tmp_path, "starting")
    directory = take(tmp_path)
    assert not directory.continued
    assert directory.seed == 9


def test_finished_run_refuses(tmp_path):
    directory = take(tmp_path)
    directory.mark_running()
    directory.mark_finished(outcome="success")
    directory.close()
    with pytest.raises(BenchmarkError, match="holds a finished run .success.") as caught:
        take(tmp_path)
    assert str(caught.value).endswith(f"--init-checkpoint {tmp_path}")


def test_other_preset_does_not_continue_a_dead_run(tmp_path):
    die_in(tmp_path)
    with pytest.raises(BenchmarkError, match="preset 'demo', this one has 'real_smoke'"):
        take(tmp_path, identity=IDENTITY | {"config_hash": "0", "preset": "real_smoke"})
    # the refusal changed nothing: the right command still continues
    assert take(tmp_path).continued


def test_other_seed_does_not_continue_a_dead_run(tmp_path):
    die_in(tmp_path)
    with pytest.raises(BenchmarkError, match="seed 5, this one has 6"):
        take(tmp_path, seed=6)
    assert take(tmp_path, seed=5).continued


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BenchmarkError, match="thesis.tex"):
        take(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(BenchmarkError, match="is a file"):
        take(tmp_path / "out")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_by_name(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("openfold_opt.protein.directory_lock.fcntl.lockf", refuse)
    with pytest.raises(
        BenchmarkError, match=f"output directory {tmp_path} has no locks .*another file system"
    ):
        take(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "odd"}'])
def test_damaged_state_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BenchmarkError, match="cannot be read"):
        take(tmp_path)


def state_of(path):
    return json.loads((path / "run.json").read_text())


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_failed_run_is_continued_if_it_has_a_checkpoint(tmp_path, has_checkpoint):
    directory = take(tmp_path)
    if has_checkpoint:
        directory.mark_running()
    directory.mark_failed(FAILURE)
    directory.close()
    state = state_of(tmp_path)
    assert (state["status"], state["resumable"], state["error"]) == (
        "failed",
        has_checkpoint,
        ERROR,
    )
    assert take(tmp_path).continued == has_checkpoint


def test_a_checkpoint_that_is_complete_after_the_failure_counts(tmp_path):
    directory = take(tmp_path)
    directory.mark_failed(FAILURE)
    directory.mark_running()
    directory.close()
    state = state_of(tmp_path)
    assert (state["status"], state["resumable"], state["error"]) == ("failed", True, ERROR)


def test_a_continued_run_that_was_refused_does_not_count(tmp_path):
    die_in(tmp_path)
    directory = take(tmp_path)
    directory.mark_failed(FAILURE)
    directory.close()
    state = state_of(tmp_path)
    assert (state["status"], state["num_resumptions"], state["continued"]) == ("failed", 0, False)
    assert take(tmp_path).log_path.name == "mlperf_continued_1.log"


def test_nothing_overrules_a_finished_run(tmp_path):
    directory = take(tmp_path)
    directory.mark_running()
    directory.mark_finished(outcome="success")
    directory.mark_failed(FAILURE)
    assert state_of(tmp_path)["status"] == "finished"


def test_a_disk_that_is_full_from_the_start_is_named(tmp_path):
    """A limit of the size of files stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            take(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(
        tmp_path / "run.reserve"
    )
    state = json.loads((tmp_path / "run.json").read_text())
    assert (state["status"], state["error"]["kind"]) == ("failed", "full disk")
    assert not (tmp_path / "run.reserve").exists()


def test_space_is_kept_for_the_reason_of_a_failure(tmp_path):
    directory = take(tmp_path)
    assert (tmp_path / "run.reserve").stat().st_size == 32 * 1024
    directory.close()
    assert not (tmp_path / "run.reserve").exists()
