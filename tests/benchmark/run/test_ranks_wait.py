"""A rank that waits for another one says for whom, and ends on SIGTERM and on Ctrl-C."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.gloo_ranks import free_port, launch_variables

ROOT = pathlib.Path(__file__).resolve().parents[3]


def start(folder, rank: int, port: int) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.tiny_benchmark",
            "run",
            "--preset",
            "tiny",
            "--data-dir",
            "unused",
            "--output-dir",
            str(folder / "out"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            **launch_variables(rank, 2, port=port),
            "OMP_NUM_THREADS": "1",
            "TINY_REPORT_SECONDS": "0.5",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def mute_port():
    """The port whose next one, at which the ranks first meet, belongs to a service that never
    answers.
    """
    with socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        service.listen(8)
        yield service.getsockname()[1] - 1


def assert_ends(rank: subprocess.Popen, number: int, code: int, *words: str) -> None:
    """Wait for the second report, then send the signal."""
    try:
        lines = []
        for line in rank.stderr:
            lines += [line] if " waits for " in line else []
            if len(lines) == 2:
                break
        assert len(lines) == 2 and all(word in line for word in words for line in lines), lines
        rank.send_signal(number)
        # within 2 s on a machine that is not busy
        rest = rank.communicate(timeout=60)[1]
        assert rank.returncode == code and "terminate called" not in rest, rest
    finally:
        rank.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_rank_waits_for_one_that_never_starts(tmp_path, number, code):
    port = free_port()
    rank = start(tmp_path, 0, port)
    assert_ends(rank, number, code, "rank 0 waits for rank 1", f"127.0.0.1:{port + 1}")


def test_a_rank_waits_for_a_first_one_that_never_starts(tmp_path):
    port = free_port()
    rank = start(tmp_path, 1, port)
    assert_ends(
        rank,
        signal.SIGTERM,
        143,
        "rank 1 waits for rank 0",
        f"127.0.0.1:{port + 1}",
        "Connection refused",
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_rank_waits_for_a_service_that_is_mute(tmp_path, mute_port, number, code):
    rank = start(tmp_path, 1, mute_port)
    assert_ends(
        rank,
        number,
        code,
        "rank 1 waits for rank 0",
        f"127.0.0.1:{mute_port + 1}",
        "does not answer",
    )
