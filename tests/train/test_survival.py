"""Runs that are killed, asked to stop, or killed while they save a checkpoint.

They end with the reason, and resume with the results of an uninterrupted run.
"""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from openfold_opt.parallel.heartbeat import LOST_RANK_EXIT_CODE
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, CheckpointStore
from tests.support.gloo_ranks import torchrun
from tests.support.run_ranks import ROOT, Ranks, finished
from tests.support.tiny_run import PREEMPTED_EXIT_CODE

QUICK = {"parallel": {"heartbeat_seconds": 4.0}, "checkpoint": {"every_steps": 1}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the losses of an uninterrupted run of two ranks."""
    return finished(tmp_path_factory.mktemp("whole"), 2, 12).losses()


def last_step(folder) -> int:
    return CheckpointStore(folder / "checkpoints", CheckpointConfig()).records()[-1].step


def kill_one_and_resume(
    folder, victim: int, after_step: int, whole: dict[int, float], *, delay: float = 0.0
) -> str:
    """Kill a training rank, and resume. Return the output of the surviving rank."""
    ranks = Ranks(folder, 2, 12, step_seconds=0.3, **QUICK)
    ranks.wait_for(f"step {after_step} ")
    time.sleep(delay)
    ranks.send_signal(victim, signal.SIGKILL)
    killed = time.monotonic()
    results = ranks.end(timeout=60.0)
    assert time.monotonic() - killed < 60
    code, text = results[1 - victim]
    assert code == LOST_RANK_EXIT_CODE or "LostRankError" in text, text
    assert f"rank {victim}" in text and "step" in text, text
    rerun = finished(folder, 2, 12, **QUICK)
    losses = rerun.losses()
    assert losses and losses == {step: whole[step] for step in losses}
    return text


@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_with_a_killed_rank_ends_and_resumes_bit_equal(whole, tmp_path, victim):
    kill_one_and_resume(tmp_path, victim, 3, whole, delay=random.Random(victim).uniform(0.0, 0.6))


@pytest.mark.parametrize("signaled", [0, 1])
def test_sigusr1_to_any_rank_stops_all_at_one_step_with_a_checkpoint(whole, tmp_path, signaled):
    ranks = Ranks(tmp_path, 2, 12, step_seconds=0.2, checkpoint={"every_steps": 0})
    ranks.wait_for("step 2 ")
    ranks.send_signal(signaled, signal.SIGUSR1)
    for code, text in ranks.end():
        assert code == PREEMPTED_EXIT_CODE, text
    assert any("PreemptedError: stopped on request" in line for line in ranks.lines)
    stopped = last_step(tmp_path)
    assert 3 <= stopped < 12
    found = finished(tmp_path, 2, 12).losses()
    assert found == {step: whole[step] for step in range(stopped + 1, 13)}


@pytest.mark.parametrize("evaluation_ranks", [0, 1])
def test_a_resumed_run_makes_the_evaluation_that_was_due_at_the_stop(tmp_path, evaluation_ranks):
    """The run stops after a step at which an evaluation is due. Without it, it would be aborted."""
    parallel = {"num_evaluation_ranks": evaluation_ranks}
    changes = {"parallel": parallel, "evaluation": {"every_steps": 4, "target_lddt_ca": 1e-6}}
    ranks = Ranks(
        tmp_path,
        1 + evaluation_ranks,
        4,
        step_seconds=0.5,
        checkpoint={"every_steps": 0},
        **changes,
    )
    ranks.wait_for("step 1 ")
    for rank in range(1 + evaluation_ranks):
        ranks.send_signal(rank, signal.SIGUSR1)
    assert [code for code, _ in ranks.end()] == [PREEMPTED_EXIT_CODE] * (1 + evaluation_ranks), (
        ranks.lines
    )
    assert last_step(tmp_path) == 4 and not ranks.words("evaluation")
    rerun = finished(tmp_path, 1 + evaluation_ranks, 4, **changes)
    assert len(rerun.words("evaluation")) == 1 and rerun.words("summary")[0][1] == "success"


def test_an_evaluation_rank_forwards_a_stop_request(tmp_path):
    ranks = Ranks(tmp_path, 2, 100, step_seconds=0.1, parallel={"num_evaluation_ranks": 1})
    ranks.wait_for("step 3 ")
    ranks.send_signal(1, signal.SIGUSR1)
    assert [code for code, _ in ranks.end()] == [PREEMPTED_EXIT_CODE] * 2, ranks.lines


def test_a_kill_while_a_checkpoint_is_written_keeps_the_previous_one(whole, tmp_path):
    """The process is killed while it writes its second checkpoint, which is delayed."""
    script = """
        import sys, time
        from openfold_opt.model.published_weights import checkpoint_tensors as tensors
        write_tensors = tensors.write_tensors
        def slow_write(folder, content):
            write_tensors(folder, content)
            if folder.name.startswith("step_00000004"):
                print("HALF", flush=True)
                time.sleep(60)
        tensors.write_tensors = slow_write
        from tests.support import tiny_run
        sys.argv = ["tiny_run", sys.argv[1], "12"]
        tiny_run.main()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("HALF"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert (tmp_path / "checkpoints" / "step_00000004.tmp").is_dir()
    assert last_step(tmp_path) == 2
    rerun = finished(tmp_path, 1, 12)
    assert sorted(rerun.losses()) == list(range(3, 13))
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))


def test_torchrun_restarts_the_ranks(whole, tmp_path):
    """A rank kills itself at step 5 of the first start."""
    script = """
        import os, signal, sys
        from openfold_opt.train.training_interval import TrainingInterval
        report = TrainingInterval._report
        is_victim = os.environ["RANK"] == "1"
        is_first_start = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        def report_and_kill(self, launched, **others):
            stop_flags = report(self, launched, **others)
            if launched.result.step == 5 and is_first_start and is_victim:
                os.kill(os.getpid(), signal.SIGKILL)
            return stop_flags
        TrainingInterval._report = report_and_kill
        from tests.support import tiny_run
        tiny_run.main()
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(script))
    command = [*torchrun(2), "--max-restarts=1"]
    shown = subprocess.run(
        [*command, str(program), str(tmp_path / "out"), "12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    steps = {
        int(line.split()[1]): float(line.split()[3])
        for line in shown.stdout.splitlines()
        if line.startswith("step ")
    }
    assert steps == whole
    assert ", start 2" in shown.stdout
