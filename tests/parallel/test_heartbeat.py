"""Dead, hung and failing ranks are detected and named; ranks that sign off are not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from openfold_opt.parallel.heartbeat import LOST_RANK_EXIT_CODE
from tests.support.gloo_ranks import free_port

SCRIPT = """
import sys, time
import torch
import torch.distributed as dist
from openfold_opt.parallel.broadcast import barrier
from openfold_opt.parallel.context import ParallelConfig, build_parallel_context
from openfold_opt.parallel.heartbeat import Heartbeat
from openfold_opt.parallel.launch import read_launch_info
behavior = sys.argv[1]
launch = read_launch_info()
context = build_parallel_context(ParallelConfig(), launch, device=torch.device("cpu"))
show = lambda failure_report: print(f"FAILURE REPORT {failure_report}", flush=True)
heartbeat = Heartbeat(
    context,
    lost_seconds=3.0,
    stuck_seconds=4.0 if behavior == "stuck" else 600.0,
    on_failure_report=show,
)
heartbeat.set_status(activity="training", step=7)
barrier(context.world)
print("READY", flush=True)
if behavior == "sign_off":
    heartbeat.close()
    time.sleep(0.5 if launch.rank else 6.0)
elif behavior == "report_failure" and launch.rank == 1:
    heartbeat.report_failure(OSError("disk full"))
    sys.exit(1)
elif behavior == "stuck":
    if launch.rank == 1:
        heartbeat.set_status(activity="waiting for data", step=8)
    else:
        heartbeat.set_status(activity="training", step=9)
    time.sleep(60)
else:
    time.sleep(60)
context.close()
"""


def start(behavior: str, num_ranks: int = 3) -> list[subprocess.Popen]:
    """Start ranks that run SCRIPT with this behavior."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, behavior],
            env=os.environ
            | {
                "RANK": str(rank),
                "WORLD_SIZE": str(num_ranks),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(num_ranks),
            }
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]


def wait_until_ready(ranks: list[subprocess.Popen]) -> None:
    for rank in ranks:
        line = rank.stdout.readline()
        while "READY" not in line:
            assert line, "a rank ended before it was ready"
            line = rank.stdout.readline()
    time.sleep(1.0)  # Wait for some heartbeats, which contain the step.


def results_of(ranks: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Wait for the ranks and return their exit codes and outputs."""
    return [(rank.wait(timeout=60), rank.stdout.read()) for rank in ranks]


@pytest.mark.parametrize(
    ("victim", "number"),
    [(1, signal.SIGKILL), (2, signal.SIGSTOP), (0, signal.SIGKILL), (0, signal.SIGSTOP)],
)
def test_the_other_ranks_exit_and_name_a_lost_rank(victim, number):
    ranks = start("sleep")
    try:
        wait_until_ready(ranks)
        ranks[victim].send_signal(number)
        started = time.monotonic()
        others = [process for rank, process in enumerate(ranks) if rank != victim]
        for code, text in results_of(others):
            assert code == LOST_RANK_EXIT_CODE, text
            assert f"rank {victim}" in text and "step 7" in text, text
        assert time.monotonic() - started < 30
    finally:
        for rank in ranks:
            rank.kill()


def test_a_suspended_job_continues():
    ranks = start("sleep", num_ranks=2)
    try:
        wait_until_ready(ranks)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in ranks:
                rank.send_signal(number)
            time.sleep(4.0)
        assert [rank.poll() for rank in ranks] == [None, None]
    finally:
        for rank in ranks:
            rank.kill()


@pytest.mark.parametrize(
    ("behavior", "words"),
    [
        ("report_failure", ("rank 1 on", "step 7", "OSError: disk full")),
        ("stuck", ("no progress for 4 s", "rank 1 on", "step 8", "data")),
    ],
)
def test_a_rank_that_fails_or_hangs_is_named(behavior, words):
    ranks = start(behavior)
    try:
        wait_until_ready(ranks)
        for code, text in results_of(ranks[::2]):
            assert code == LOST_RANK_EXIT_CODE
            assert all(word in text for word in words), text
    finally:
        for rank in ranks:
            rank.kill()


def test_a_rank_that_signed_off_is_not_lost():
    ranks = start("sign_off")
    wait_until_ready(ranks)
    assert [code for code, _ in results_of(ranks)] == [0, 0, 0]
