"""Waiting for other ranks: results, errors, timeouts and signals."""

import os
import signal
import threading

import pytest

from openfold_opt.parallel import waiting
from openfold_opt.parallel.waiting import wait_interruptibly


def fail(wait):
    raise OSError("disk full")


def block(wait):
    wait.target = "rank 5"
    wait.is_over.wait(60)


def test_results_and_errors_are_passed_on():
    assert wait_interruptibly(lambda wait: 7, who="rank 0", timeout_seconds=60) == 7
    with pytest.raises(OSError, match="disk full"):
        wait_interruptibly(fail, who="rank 0", timeout_seconds=60)


def test_messages_say_what_a_rank_waits_for(monkeypatch, capfd):
    monkeypatch.setattr(waiting, "REPORT_SECONDS", 0.1)
    threads = threading.active_count()
    with pytest.raises(TimeoutError, match=r"rank 0 waited .* for rank 5"):
        wait_interruptibly(block, who="rank 0", timeout_seconds=0.5)
    assert threading.active_count() == threads
    assert "rank 0 waits for rank 5 (0 s so far, at most 0 s)" in capfd.readouterr().err


def test_an_interrupt_ends_the_wait():
    # The background jobs of a shell start with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_interruptibly(block, who="rank 0", timeout_seconds=60)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
