"""Signals that stop a run: which signals are one request, and the exit codes."""

import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from benchmark.run import signals
from benchmark.run.signals import Terminated, stopping_by_signal
from openfold_opt.train.preemption import StopRequest
from tests.support.run_and_time import ROOT, run_and_time


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def test_signals_within_five_seconds_are_one_request_before_training():
    """The first signal ends the process; the next one does not interrupt its cleanup."""
    cleaned_up = False
    with pytest.raises(Terminated) as caught, stopping_by_signal(StopRequest()):
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGTERM, signal.SIGINT)
            cleaned_up = True
    assert cleaned_up and caught.value.exit_code == 130


def test_signals_within_five_seconds_are_one_request_during_training_and_after_it():
    request = StopRequest()
    with stopping_by_signal(request):
        with request.watched():
            send(signal.SIGINT, signal.SIGTERM)
        send(signal.SIGTERM)
    assert request.is_raised


def test_a_later_signal_ends_the_process(monkeypatch):
    request = StopRequest()
    with pytest.raises(Terminated) as caught, stopping_by_signal(request), request.watched():
        send(signal.SIGINT)
        monkeypatch.setattr(signals, "SAME_SIGNAL_SECONDS", -1.0)
        send(signal.SIGTERM)
    assert request.is_raised and caught.value.exit_code == 143


def start_script(folder, *, ranks=1, **variables):
    command, changes = run_and_time(folder, preset="tiny_target", ranks=ranks)
    changes |= {"OMP_NUM_THREADS": "1", "SUBMISSION_ORG": "me"} | variables
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **changes},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A background job of a shell ignores SIGINT, and so would the script.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_line(process, text):
    """Read the output up to a line, with a limit of two minutes."""
    limit = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    limit.start()
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return
    finally:
        limit.cancel()
    pytest.fail(f"the run ended without {text!r}: {''.join(lines)}")


@pytest.mark.parametrize("is_group", [True, False], ids=["process group", "script alone"])
def test_ctrl_c_during_warm_up_has_exit_code_130(tmp_path, is_group):
    process = start_script(tmp_path, TINY_WARM_UP_SECONDS="60")
    wait_for_line(process, "pausing in the warm-up")
    (os.killpg if is_group else os.kill)(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "Traceback" not in text and "SIGTERM" not in text and "run failed" not in text
    expected = "there is no checkpoint yet, so the same command starts from the beginning"
    assert f"benchmark run: stopped by a signal; {expected}" in text


def test_ctrl_c_while_modules_are_imported_has_exit_code_130(tmp_path):
    process = start_script(tmp_path, TINY_WARM_UP_SECONDS="60")
    wait_for_line(process, "STARTING TIMING RUN")
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_group", [True, False], ids=["process group", "script alone"])
def test_a_signal_during_training_is_one_request(tmp_path, number, ranks, is_group):
    process = start_script(tmp_path, ranks=ranks, TINY_STEP_SECONDS="2")
    wait_for_line(process, "data: ")
    while not (tmp_path / "out" / "steps.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    (os.killpg if is_group else os.kill)(process.pid, number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 75, text
    assert text.count("stopped on request after step") == 1 and "run failed" not in text
    assert "is complete, and the same command continues the run" in text and "Traceback" not in text


def test_a_killed_rank_is_named(tmp_path):
    process = start_script(tmp_path, ranks=2, TINY_STEP_SECONDS="2", TINY_HEARTBEAT_SECONDS="3")
    wait_for_line(process, "data: ")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL, text
    assert "run_and_time.sh: rank 1 was ended by signal 9" in text
    assert "rank 1 on" in text and "sent no heartbeat" in text
    assert "trap -" not in text and "RESULT" not in text
