"""run.json: what is written, and that it is read back."""

import dataclasses

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.run.run_clock import RunDurations
from benchmark.run.state_file import Failure, RunState, read_state, write_state

STATE = RunState(
    status="running",
    continued=True,
    num_resumptions=1,
    seed=5,
    identity={"preset": "demo", "init_checkpoint": None},
    resumable=True,
    command="python -m benchmark run",
)
FAILURE = Failure(
    kind="not finite",
    type="NonFiniteError",
    message="loss",
    step=3,
    rank=0,
    sample_ids=("1abc_A (seed 1)",),
    traceback="...",
)
CLOCK = RunDurations(wall_seconds=1.5, monotonic_seconds=1.5, disagreement=None)
FINISHED = dataclasses.replace(
    STATE, status="finished", resumable=False, command=None, outcome="success", clock=CLOCK
)
FAILED = dataclasses.replace(STATE, status="failed", error=FAILURE)
COMMON = ["status", "continued", "num_resumptions", "seed", "identity"]


@pytest.mark.parametrize("state", [STATE, FAILED, FINISHED], ids=lambda state: state.status)
def test_a_state_is_read_back(tmp_path, state):
    assert read_state(tmp_path) is None
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@pytest.mark.parametrize(
    ("state", "keys"),
    [
        (STATE, [*COMMON, "resumable", "command"]),
        (FAILED, [*COMMON, "resumable", "command", "error"]),
        (FINISHED, [*COMMON, "outcome", "clock"]),
    ],
    ids=["running", "failed", "finished"],
)
def test_keys_and_their_order(state, keys):
    assert list(state.as_json()) == keys


def test_a_state_without_resumable_follows_the_status(tmp_path):
    for status, expected in (("running", True), ("starting", False)):
        (tmp_path / "run.json").write_text(f'{{"status": "{status}"}}')
        assert read_state(tmp_path).resumable is expected


def test_an_unknown_status_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "odd"}')
    with pytest.raises(BenchmarkError, match="cannot be read .status 'odd'."):
        read_state(tmp_path)
