"""`benchmark run`: its files, its refusals, and the state of a killed run."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmark.code_revision import code_digest
from benchmark.mlperf.check import check_log
from benchmark.mlperf.run_log import RunLog
from benchmark.run.summary import read_evaluations
from tests.support.gloo_ranks import free_port, launch_variables

ROOT = pathlib.Path(__file__).resolve().parents[3]


def command(preset, output, *flags, data="unused"):
    base = [sys.executable, "-m", "tests.support.tiny_benchmark", "run", "--preset", preset]
    return [*base, "--data-dir", str(data), "--output-dir", str(output), *map(str, flags)]


def environment(**changes):
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def run_two_ranks(preset, output, *, code, **variables):
    """Standard output and standard error of both ranks, which end with the same exit code."""
    port = free_port()
    ranks = [
        subprocess.Popen(
            command(preset, output),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**launch_variables(rank, 2, port=port), **variables),
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [code, code], outputs
    return outputs


def run(*args, **keywords):
    return subprocess.run(
        command(*args, **keywords),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=120,
    )


def refusal(result):
    """Return the message of a run that could not start, which has no traceback and exit code 2."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("benchmark run: ")
    return result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Output directory and standard output of a run that reached its very low target."""
    output = tmp_path_factory.mktemp("finished") / "out"
    result = run("tiny_target", output, "--seed", 11)
    assert result.returncode == 0, result.stderr
    return output, result.stdout


def test_files_of_a_run(finished):
    output, printed = finished
    names = {path.name for path in output.iterdir()}
    expected = {
        "mlperf.log",
        "config.json",
        "run.json",
        "summary.txt",
        "evaluation_curve.png",
        "loss_curve.png",
        "steps.jsonl",
    }
    assert expected | {"evaluations.jsonl", "checkpoints"} <= names
    assert (output / "summary.txt").read_text().strip() in printed
    state = json.loads((output / "run.json").read_text())
    clock = state.pop("clock")
    assert state | {"identity": None} == {
        "status": "finished",
        "outcome": "success",
        "continued": False,
        "num_resumptions": 0,
        "seed": 11,
        "identity": None,
    }
    assert clock["disagreement"] is None and clock["wall_seconds"] > 0


def test_configuration_of_the_log(finished):
    content = json.loads((finished[0] / "config.json").read_text())
    assert content["preset"] == "tiny_target" and content["division"] == "open"
    assert content["seed"] == 11 and content["device"] == "cpu"
    assert content["config"]["data"]["crop_size"] == 8
    assert content["versions"]["torch"] == torch.__version__
    assert content["machine"]["cpu_count"] >= 1


def leaves(tree):
    for value in tree.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


def test_resolved_configuration_is_saved_and_printed(finished):
    output, printed = finished
    config = json.loads((output / "config.json").read_text())["config"]
    assert "auto" not in list(leaves(config))
    kernels = {name for name in config["kernels"].values() if isinstance(name, str)}
    assert kernels == {"reference"} and config["device"] == "cpu"
    assert config["loader"]["prefetch"] == "direct"
    stacks = ("template_pair_stack", "extra_msa_stack", "evoformer_stack")
    assert config["recompute"] == dict.fromkeys(stacks, 0)
    (line,) = [line for line in printed.splitlines() if line.startswith("resolved: ")]
    assert "device cpu, precision fp32, kernels reference" in line
    assert "global batch 1 = 1 data-parallel x 1 local x 1 accumulated, DAP 1, world size 1" in line


def test_the_code_that_ran_is_recorded(finished):
    content = json.loads((finished[0] / "config.json").read_text())
    assert content["code"]["sha256"] == code_digest(ROOT)
    assert bool(content["code"]["uncommitted"]) == content["versions"]["commit"].endswith("-dirty")
    says_so = "`submit` refuses this run" in finished[1]
    assert says_so == (not re.fullmatch("[0-9a-f]{40}", content["versions"]["commit"]))


def test_log_of_a_run(finished):
    log = RunLog.read(finished[0] / "mlperf.log")
    assert log.damage == ()
    values = {event.key: event.value for event in log.events}
    assert values["seed"] == 11
    assert values["submission_division"] == "open"
    assert log.events[-1].key == "run_stop" and log.events[-1].detail("status") == "success"
    # Only the score is too low, because the target is far below that of the rules.
    result = check_log(log.path, below_target=True)
    assert result.passed, result.complaints
    assert read_evaluations(finished[0])[-1].lddt_ca == values["eval_accuracy"]


def test_finished_directory_is_refused(finished):
    assert "holds a finished run (success)" in refusal(
        run("tiny_target", finished[0], "--seed", 11)
    )


def test_target_not_reached_is_exit_code_1(tmp_path):
    result = run("tiny", tmp_path / "out")
    assert result.returncode == 1, result.stderr
    state = json.loads((tmp_path / "out" / "run.json").read_text())
    assert state["outcome"] == "target not reached"
    assert "aborted" not in result.stdout
    assert not check_log(tmp_path / "out" / "mlperf.log").passed


def start_slow(output, *flags, step_seconds=4):
    """Start a slow run, and return it when the first checkpoint, after two steps, is written.

    By default, the remaining six steps take 24 s, in which another process can start on a busy
    machine.
    """
    process = subprocess.Popen(
        command("tiny", output, *flags),
        cwd=ROOT,
        env=environment(TINY_STEP_SECONDS=str(step_seconds)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not list(output.glob("checkpoints/step_*[0-9]")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no checkpoint within four minutes"
        time.sleep(0.05)
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def losses(output):
    by_step = {}
    for line in (output / "steps.jsonl").read_text().splitlines():
        if line.endswith("}"):
            step = json.loads(line)
            by_step[step["step"]] = step["loss"]
    return by_step


def test_killed_run_resumes_bit_for_bit_and_is_not_a_result(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start_slow(killed, "--seed", 5)
    live = run("tiny", killed, "--seed", 5)
    end(process)
    assert f"in use by a live run (process {process.pid}" in refusal(live)
    assert "this one has 6" in refusal(run("tiny", killed, "--seed", 6))

    resumed = run("tiny", killed)
    assert resumed.returncode == 1, resumed.stderr
    assert run("tiny", whole, "--seed", 5).returncode == 1
    assert losses(killed) == losses(whole)
    assert len(losses(whole)) == 8

    assert json.loads((killed / "run.json").read_text())["continued"] is True
    log = killed / "mlperf_continued_1.log"
    assert any("resumed run" in text for text in check_log(log, below_target=True).complaints)
    assert (killed / "config_continued_1.json").exists()
    assert "continued           yes, after step" in (killed / "summary.txt").read_text()


def test_two_ranks_draw_one_seed(tmp_path):
    output = tmp_path / "out"
    outputs = run_two_ranks("tiny", output, code=1)
    values = RunLog.read(output / "mlperf.log").values
    assert values["number_of_ranks"] == 2 and values["global_batch_size"] == 2
    assert outputs[1][0] == "", "only the first rank prints"


def test_two_ranks_are_refused_together(finished):
    outputs = run_two_ranks("tiny_target", finished[0], code=2)
    assert "holds a finished run" in outputs[0][1]
    assert "the first rank refused the run" in outputs[1][1]


@pytest.mark.parametrize(
    ("numbers", "pause", "code"),
    [
        ((signal.SIGTERM,), 0.0, 75),
        ((signal.SIGINT,), 0.0, 75),
        ((signal.SIGUSR1, signal.SIGTERM), 0.2, 75),
        ((signal.SIGTERM,) * 2, 5.5, 143),
        ((signal.SIGINT,) * 2, 5.5, 130),
    ],
    ids=["SIGTERM", "Ctrl-C", "one request by two signals", "second SIGTERM", "second Ctrl-C"],
)
def test_a_signal_closes_the_log_and_leaves_a_resumable_run(tmp_path, numbers, pause, code):
    """The first signal stops the run after the step with a checkpoint, a second one at once."""
    output = tmp_path / "out"
    # The run must not end within the pause.
    process = start_slow(output, "--seed", 5, step_seconds=4 if pause > 1 else 2)
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert (
        "is complete, and the same command continues" if code == 75 else "stopped by a signal"
    ) in text and "Traceback" not in text
    stops = RunLog.read(output / "mlperf.log").select("run_stop")
    assert [event.detail("status") for event in stops] == ["aborted"]
    state = json.loads((output / "run.json").read_text())
    assert (
        state["status"] == ("preempted" if code == 75 else "failed") and state["resumable"] is True
    )


def test_a_run_killed_before_its_first_checkpoint_is_not_resumed(tmp_path):
    output = tmp_path / "out"
    process = subprocess.Popen(
        command("tiny_target", output, "--seed", 5),
        cwd=ROOT,
        env=environment(TINY_STEP_SECONDS="30"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while "run_start" not in (
        (output / "mlperf.log").read_text() if (output / "mlperf.log").exists() else ""
    ):
        assert process.poll() is None
        time.sleep(0.05)
    end(process)
    again = run("tiny_target", output, "--seed", 5)
    assert again.returncode == 0, again.stderr
    assert json.loads((output / "run.json").read_text())["continued"] is False
    assert "run_continued" not in (output / "mlperf.log").read_text()
    assert [
        json.loads(line)["step"] for line in (output / "steps.jsonl").read_text().splitlines()
    ] == [1, 2, 3, 4]


def test_a_log_that_cannot_be_written_ends_the_run(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "run.json").write_text('{"status": "starting"}')
    (output / "mlperf.log").symlink_to("/dev/full")
    result = run("tiny_target", output)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "No space left on device" in line and str(output / "mlperf.log") in line
    state = json.loads((output / "run.json").read_text())
    assert (state["status"], state["resumable"]) == ("failed", False)
    assert state["error"]["kind"] == "full disk" and state["error"]["type"] == "OSError"


@pytest.mark.parametrize(
    ("name", "value", "message"), [("SUBMISSION_STATUS", "bogus", "SUBMISSION_STATUS is 'bogus'")]
)
def test_a_wrong_environment_is_refused_by_all_ranks(tmp_path, name, value, message):
    outputs = run_two_ranks("tiny", tmp_path / "out", code=2, **{name: value})
    assert all(message in errors and "Traceback" not in errors for _, errors in outputs)


def test_an_output_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refusal(run("tiny", tmp_path / "file" / "out"))


def test_fields_that_were_set_are_recorded_and_logged(tmp_path):
    output = tmp_path / "out"
    settings = ("--set", "evaluation.target_lddt_ca=1e-6", "--set", "log_every_steps=3")
    result = run("tiny", output, "--seed", 11, *settings)
    assert result.returncode == 0, result.stderr
    expected = ["evaluation.target_lddt_ca=1e-6", "log_every_steps=3"]
    assert f"run: preset tiny, set {' '.join(expected)} (open division)" in result.stdout
    content = json.loads((output / "config.json").read_text())
    assert content["settings"] == expected and content["config"]["log_every_steps"] == 3
    events = RunLog.read(output / "mlperf.log").values
    assert events["changed_fields"] == expected and events["submission_division"] == "open"
    # The checker accepts the key; only the score is too low.
    (complaint,) = check_log(output / "mlperf.log").complaints
    assert "eval_accuracy" in complaint
    assert "no such field" in refusal(run("tiny", tmp_path / "other", "--set", "no.such=1"))
