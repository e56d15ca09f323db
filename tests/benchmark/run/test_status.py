"""`benchmark status`: it tells apart how a run ended, and run.json has the reason."""

import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

from benchmark.__main__ import main
from benchmark.mlperf.run_log import RunLog
from benchmark.run.failure import describe_failure
from benchmark.run.state_file import RunState
from benchmark.run.status import RunStatus, read_status, status_lines
from openfold_opt.loader.retry_policy import LoaderError
from tests.support.gloo_ranks import free_port, launch_variables
from tests.support.run_and_time import run_and_time

ROOT = pathlib.Path(__file__).resolve().parents[3]
STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Also where a test fails."""
    yield
    for process in STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    STARTED.clear()


def start(output, *, preset="tiny", preexec=None, command=None, **variables):
    """A run in a process group; Ctrl-C reaches it even if the tests run in the background of a
    shell.
    """

    def prepare():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if preexec is not None:
            preexec()

    arguments = ["--preset", preset, "--data-dir", "unused", "--output-dir", str(output)]
    run = ["-m", "tests.support.tiny_benchmark", "run", *arguments, "--seed", "5"]
    process = subprocess.Popen(
        command or [sys.executable, *run],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def end(process):
    """Exit code and output."""
    text, _ = process.communicate(timeout=240)
    return process.returncode, text


def start_slow(output, **variables):
    """A run of many slow steps that has written a checkpoint."""
    process = start(output, TINY_STEP_SECONDS="1", TINY_CHANGES='{"max_steps": 100}', **variables)
    wait_for_checkpoint(output, process)
    return process


def wait_for_checkpoint(output, process):
    deadline = time.monotonic() + 240
    while not list(output.glob("checkpoints/step_*[0-9]")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.05)


def status(output):
    """The lines that the command prints."""
    return status_lines(read_status(output))


def state(output):
    return json.loads((output / "run.json").read_text())


def detail(lines, name):
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return line.removeprefix(name).strip()


def test_out_of_steps_is_target_not_reached_and_the_last_steps_are_evaluated(tmp_path, capsys):
    code, text = end(start(tmp_path / "out", TINY_CHANGES='{"max_steps": 6}'))
    assert code == 1 and "target not reached after 6 steps" in text and "aborted" not in text
    assert main(["status", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("target not reached: out of steps after step 6 of 6, lDDT-Ca 0.")
    assert "after step 6, " in detail(lines, "last scores") and "after step 4" in lines[2]
    assert not any(line.startswith(("error", "continue", "time left")) for line in lines)
    log = RunLog.read(tmp_path / "out" / "mlperf.log")
    scores = [event.detail("epoch_num") for event in log.select("eval_accuracy")]
    assert scores == [4, 6]
    # the rules' word stays in the log
    assert log.events[-1].detail("status") == "aborted"
    assert main(["check", "--below-target", str(tmp_path / "out" / "mlperf.log")]) == 0


def test_success(tmp_path):
    code, text = end(start(tmp_path / "out", preset="tiny_target"))
    assert code == 0
    assert (
        f"  python -m benchmark check --below-target {tmp_path / 'out'} "
        in text.partition("next:\n")[2]
    )
    assert status(tmp_path / "out")[0].startswith("success: target reached after step 4 of 8")


def test_running_and_killed(tmp_path):
    output = tmp_path / "out"
    process = start_slow(output)
    lines = status(output)
    assert lines[0].startswith("running: step ") and f"process {process.pid} on" in lines[0]
    assert "to step 100" in lines[0] and "to step 100" in detail(lines, "time left")
    process.send_signal(signal.SIGKILL)
    end(process)
    lines = status(output)
    assert lines[0].startswith("killed: the process ended without recording why, after step ")
    command = detail(lines, "continue")
    assert command.startswith("python -m benchmark run --preset tiny --data-dir ")
    assert command.endswith(f"--output-dir {output}")


def test_not_finite(tmp_path):
    output = tmp_path / "out"
    code, text = end(start(output, TINY_BROKEN_SAMPLE="4"))
    assert code == 1 and "Traceback" not in text
    assert status(output)[0] == (
        "not finite: a loss, a gradient or a score is NaN or infinite, at step 5, rank 0"
    )
    found = state(output)
    error = found["error"]
    assert (found["status"], found["resumable"]) == ("failed", True)
    assert (error["type"], error["step"], error["rank"]) == ("NonFiniteError", 5, 0)
    assert error["sample_ids"] == ["chain4 (seed 4)"]
    assert error["message"].startswith("step 5 ") and "training_interval.py" in error["traceback"]


@pytest.mark.parametrize("bytes_per_file", [16_000, 100_000], ids=["from the start", "checkpoint"])
def test_full_disk(tmp_path, bytes_per_file):
    """A limit of the file size replaces a full disk, which a test could only make as root."""
    output = tmp_path / "out"
    limits = (bytes_per_file, bytes_per_file)
    code, text = end(
        start(output, preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    )
    assert code == (2 if bytes_per_file == 16_000 else 1), text
    assert "Traceback" not in text and text.count("benchmark run: ") == 1
    assert status(output)[0].startswith("full disk: a file could not be written")
    assert state(output)["status"] == "failed" and not (output / "run.reserve").exists()
    # with room, the same command works
    assert end(start(output, preset="tiny"))[0] == 1
    assert status(output)[0].startswith("target not reached")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_and_the_command_that_continues(tmp_path, number):
    output = tmp_path / "out"
    process = start_slow(output)
    process.send_signal(number)
    code, text = end(process)
    assert code == 75 and "Traceback" not in text, text
    lines = status(output)
    assert lines[0].startswith("preempted: stopped by a signal after step ")
    assert detail(lines, "checkpoint") != "none"
    assert detail(lines, "continue").startswith("python -m benchmark run")
    assert state(output)["status"] == "preempted" and "error" not in state(output)


def test_a_signal_before_training(tmp_path):
    """The first rank waits for a second one that never comes."""
    launch = launch_variables(0, 2, port=free_port())
    output = tmp_path / "out"
    process = start(output, **launch, TINY_REPORT_SECONDS="0.5")
    for line in process.stdout:
        if " waits for " in line:
            break
    process.send_signal(signal.SIGINT)
    code, text = end(process)
    assert code == 130 and "Traceback" not in text
    lines = status(output)
    assert lines[0] == "interrupted: a signal ended the run at once, rank 0"
    assert detail(lines, "error").startswith("Terminated: ended at once by SIGINT")
    assert detail(lines, "continue").endswith("(starts again: there is no checkpoint)")


def start_two(output, **variables):
    port = free_port()
    return [start(output, **launch_variables(rank, 2, port=port), **variables) for rank in range(2)]


def test_lost_rank(tmp_path):
    output = tmp_path / "out"
    changes = '{"max_steps": 100}'
    first, second = start_two(
        output, TINY_STEP_SECONDS="0.5", TINY_CHANGES=changes, TINY_HEARTBEAT_SECONDS="4"
    )
    wait_for_checkpoint(output, first)
    second.send_signal(signal.SIGKILL)
    code, text = end(first)
    end(second)
    assert code == 76, text
    lines = status(output)
    assert lines[0].startswith("lost rank: another rank died, failed or hung, at step ")
    assert lines[0].endswith(", rank 1")
    error = state(output)["error"]
    assert (error["type"], error["rank"]) == ("LostRankError", 1)
    assert detail(lines, "continue").endswith("run_and_time.sh with these options)")


def test_ctrl_c_reaches_all_ranks_at_once(tmp_path):
    output = tmp_path / "out"
    ranks = start_two(output, TINY_STEP_SECONDS="0.5", TINY_CHANGES='{"max_steps": 100}')
    wait_for_checkpoint(output, ranks[0])
    for process in ranks:
        process.send_signal(signal.SIGINT)
    ends = [end(process) for process in ranks]
    assert [code for code, _ in ends] == [75, 75], ends
    assert not any("Traceback" in text for _, text in ends)
    assert status(output)[0].startswith("preempted: ")


@pytest.mark.parametrize("launcher", ["run_and_time.sh", "torchrun"])
def test_ctrl_c_at_a_terminal(tmp_path, launcher):
    """A terminal sends the signal to every process of the group: launcher, ranks, workers."""
    output = tmp_path / "out"
    variables = {"TINY_STEP_SECONDS": "1", "TINY_CHANGES": '{"max_steps": 100}'}
    command, changes = run_and_time(tmp_path, preset="tiny")
    if launcher == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += [
            "--master-port",
            str(free_port()),
            "-m",
            "tests.support.tiny_benchmark",
            "run",
        ]
        command += ["--preset", "tiny", "--data-dir", "unused", "--output-dir", str(output)]
        changes = {}
    process = start(output, command=command, **variables, **changes)
    wait_for_checkpoint(output, process)
    os.killpg(process.pid, signal.SIGINT)
    code, text = end(process)
    assert "is complete, and the same command continues the run" in text
    assert status(output)[0].startswith("preempted: ")
    if launcher == "run_and_time.sh":
        assert code == 75 and "Traceback" not in text
    else:
        # the launcher itself ends with a traceback; no rank does
        assert code != 0 and text.count("Traceback") <= 1, text


def test_a_refused_run_says_why_and_a_continued_one_is_not_counted(tmp_path):
    output = tmp_path / "out"
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"nothing")
    command = [sys.executable, "-m", "tests.support.tiny_benchmark", "run", "--preset", "tiny"]
    command += ["--data-dir", "unused", "--output-dir", str(output)]
    result = subprocess.run(
        [*command, "--init-checkpoint", str(weights)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    lines = status(output)
    assert (
        lines[0] == "refused: the run could not start with these options, data or machines, rank 0"
    )
    assert "weights.pt is not a checkpoint" in detail(lines, "error")
    assert state(output)["resumable"] is False


def test_a_directory_that_is_not_a_run_is_exit_code_2(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert "has no run.json; expected the output directory of a run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"status":')
    assert main(["status", str(tmp_path)]) == 2
    (tmp_path / "run.json").write_text("[]")
    assert main(["status", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", '{"status": "failed"}'),
        ("steps.jsonl", '{"loss": 1}\n'),
        ("config.json", "[1]"),
    ],
)
def test_files_of_another_version_are_exit_code_2(tmp_path, capsys, file, content):
    (tmp_path / "run.json").write_text('{"status": "running", "resumable": false}')
    (tmp_path / file).write_text(content)
    assert main(["status", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "expected the files of a run of this version" in message and message.count("\n") == 1


@pytest.mark.parametrize("file", ["run.json", "config.json"])
def test_json_that_is_too_deep_is_exit_code_2(tmp_path, capsys, file):
    (tmp_path / "run.json").write_text('{"status": "running", "resumable": false}')
    (tmp_path / file).write_text("[" * 100_000)
    assert main(["status", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "recursion" in message and message.count("\n") == 1


@pytest.mark.parametrize("file", ["steps.jsonl", "evaluations.jsonl"])
def test_a_line_that_is_too_deep_is_skipped(tmp_path, file):
    (tmp_path / "run.json").write_text('{"status": "running", "resumable": false}')
    (tmp_path / file).write_text("[" * 100_000 + "\n")
    assert main(["status", str(tmp_path)]) == 0


def test_tracebacks_of_workers_are_not_shown():
    message = (
        "preparing step 1 failed: OSError: no\n\nTraceback (most recent call last):\n"
        '  File "loader.py", line 3, in call\n    read()\nOSError: no\n\nfix the cause'
    )
    failure = describe_failure(LoaderError(message), step=0)
    shown = RunStatus(
        state=RunState(status="failed", identity={}, resumable=True, error=failure),
        plan=None,
        lock_holder_name=None,
        checkpoint=None,
        steps=(),
        evaluations=(),
    )
    lines = status_lines(shown)
    assert lines[0] == "failed: LoaderError, after step 0, rank 0"
    text = "\n".join(lines)
    assert "preparing step 1 failed: OSError: no\nfix the cause" in text
    assert "Traceback" not in text
