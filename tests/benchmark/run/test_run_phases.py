"""`benchmark run --phase`: one process for each phase, watched by status and TensorBoard."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmark.run.status import read_status, status_lines

ROOT = pathlib.Path(__file__).resolve().parents[3]
WATCHED = ("--tensorboard",) if importlib.util.find_spec("tensorboard") is not None else ()


def run(preset, output, *flags):
    """Run a preset of tests.support.tiny_benchmark."""
    words = [sys.executable, "-m", "tests.support.tiny_benchmark", "run", "--preset", preset]
    words += ["--data-dir", "unused", "--output-dir", str(output), "--seed", "5", *flags]
    return subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    """Return the output directory of a run in two processes, and what is known after each."""
    output = tmp_path_factory.mktemp("phases") / "out"
    known = []
    for name in ("first", "second"):
        result = run("tiny_phases", output, "--phase", name, *WATCHED)
        assert result.returncode == 0, result.stderr
        state = json.loads((output / "run.json").read_text())
        known.append((result.stdout, state, status_lines(read_status(output))))
    return output, known


def test_process_ends_with_its_phase(phases):
    _, ((printed, state, lines), _) = phases
    assert (state["status"], state["resumable"]) == ("phase complete", True)
    assert (state["phase"], state["completed_phases"]) == ("first", ["first"])
    assert lines[0].startswith("phase complete: first (1 of 2) ended after step 4 of 8, lDDT-Ca ")
    (command,) = [line for line in lines if line.startswith("continue ")]
    assert " --phase second" in command
    assert ("--tensorboard" in command) == bool(WATCHED)
    assert "# the command of the next phase" in printed


def test_next_process_completes_the_run(phases):
    output, (_, (_, state, lines)) = phases
    assert (state["status"], state["outcome"]) == ("finished", "success")
    assert lines[0].startswith("success: the last phase ended after step 8 of 8, lDDT-Ca ")
    steps = [json.loads(line) for line in (output / "steps.jsonl").read_text().splitlines()]
    samples = [(line["step"], line["samples_seen"]) for line in steps]
    assert samples == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (6, 8), (7, 10), (8, 12)]
    assert (output / "loss_curve.png").stat().st_size > 1000


@pytest.mark.skipif(not WATCHED, reason="the extra tensorboard is not installed")
def test_event_files_of_both_processes_are_one_line(phases):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output, _ = phases
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    assert [(event.step, event.value) for event in events.Scalars("phase")] == [(1, 1.0), (5, 2.0)]
    assert len(list((output / "tensorboard").iterdir())) == 2


def test_complete_phase_is_not_repeated(phases):
    output, _ = phases
    result = run("tiny_phases", output, "--phase", "first")
    assert result.returncode == 0 and "phase first is complete" in result.stdout


def test_failed_condition(tmp_path):
    result = run("tiny_condition", tmp_path / "out", "--phase", "first")
    assert result.returncode == 1 and "expected at least 1.0 by step 4" in result.stderr
    lines = status_lines(read_status(tmp_path / "out"))
    assert lines[0] == (
        "condition failed: a phase did not reach the lDDT-Ca that it requires, after step 4, rank 0"
    )
    assert any("best so far 0." in line for line in lines if line.startswith("condition "))


def test_unknown_phase_is_refused(tmp_path):
    result = run("tiny_phases", tmp_path / "out", "--phase", "third")
    assert result.returncode == 2 and "has no phase 'third'" in result.stderr
    assert not (tmp_path / "out").exists()
