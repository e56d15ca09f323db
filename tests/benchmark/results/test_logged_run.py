"""One run from its log: what is read, and why a file is refused."""

import json
import math

import pytest

from benchmark.results.logged_run import LogError, read_logged_run
from benchmark.results.metrics import evaluation_alone, step_seconds
from tests.support.synthetic_logs import MadeLog, whole_run


def reason(path):
    with pytest.raises(LogError) as caught:
        read_logged_run(path)
    return str(caught.value)


def test_a_whole_run_is_read(tmp_path):
    run = read_logged_run(whole_run(seed=7).write(tmp_path / "mlperf.log"))
    assert run.is_converged
    assert run.seed == 7
    assert run.has_closed_sample
    assert run.minutes == pytest.approx((120 + 80 + 80 + 30) / 60)
    assert run.samples == 3 * 40 * 32
    assert step_seconds(run) == pytest.approx([3, 2, 2])
    assert run.data_waits == (0.5, 0.1, 0.1)
    assert evaluation_alone(run) == pytest.approx(30)
    assert run.run_start_ms - run.init_start_ms == 20e3


def test_evaluation_beside_training_does_not_count_as_alone(tmp_path):
    log = MadeLog()
    log.event("run_start")
    log.train(seconds=80, samples=1280)
    log.event("eval_start", epoch_num=1280)
    log.event("epoch_start", epoch_num=2560)
    log.now += 10
    log.event("eval_accuracy", 0.81, epoch_num=1280)
    log.event("run_stop", status="success")
    run = read_logged_run(log.write(tmp_path / "mlperf.log"))
    assert run.samples == 1280
    assert run.open_interval_start == 80
    assert evaluation_alone(run) == pytest.approx(0)


def test_events_after_the_clock_do_not_count(tmp_path):
    log = whole_run()
    log.evaluate(0.9, seconds=5, samples=99999)
    assert read_logged_run(log.write(tmp_path / "mlperf.log")).samples == 3 * 40 * 32


def test_micro_steps_are_told_from_optimizer_steps(tmp_path):
    theirs = whole_run(gradient_accumulation_steps=2)
    ours = "\n".join(theirs.lines).replace("avg_perf_next_batch", "data_wait_seconds_per_step")
    (tmp_path / "ours.log").write_text(ours)
    assert read_logged_run(theirs.write(tmp_path / "theirs.log")).counts_micro_steps
    assert not read_logged_run(tmp_path / "ours.log").counts_micro_steps


@pytest.mark.parametrize(
    ("find", "replacement", "expected"),
    [
        ('"openfold"', '"deepcam"', "submission_benchmark is 'deepcam'"),
        ('"run_stop"', '"other"', "no run_stop"),
        ('"run_start"', '"other"', "no run_start"),
        ('"eval_stop"', '"run_stop"', "4 run_stop"),
        ('"eval_stop"', '"run_start"', "4 run_start"),
        (
            '"global_batch_size", "value": 32',
            '"global_batch_size", "value": 0',
            "global_batch_size is 0",
        ),
        (
            '"global_batch_size", "value": 32',
            '"global_batch_size", "value": "many"',
            "global_batch_size is 'many'",
        ),
        ('"value": 0.7,', '"value": 1' + 400 * "0" + ",", "expected a number"),
        ('"number_of_nodes"', '"nodes"', "number_of_nodes is None"),
        ('"value": 0.7,', '"value": NaN,', "eval_accuracy is nan"),
        (
            '"epoch_num": 2560',
            '"epoch_num": 1280',
            "epoch_stop at 1280 samples does not come after 1280",
        ),
        ('"epoch_num": 2560', '"epochs": 2560', "epoch_num of eval_start is None"),
        ('"eval_accuracy"', '"accuracy"', "success, but there is no eval_accuracy"),
        ('"seed", "value": 1', '"run_continued", "value": 1', "resumed"),
        ('"key": "seed"', '"key": {}', "an event has the key {}"),
        ('"time_ms": 1000000000000', '"time_ms": "noon"', "time_ms of init_start is 'noon'"),
        ('"metadata": {"status": "success"}', '"metadata": {"sta', "damaged: line"),
    ],
)
def test_refused_with_the_reason(tmp_path, find, replacement, expected):
    path = whole_run(seed=1).write(tmp_path / "mlperf.log")
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, replacement))
    assert expected in reason(path)


def test_foreign_and_empty_files_are_refused(tmp_path):
    (tmp_path / "text.log").write_text("epoch 1, loss 3.0\n")
    (tmp_path / "bytes.log").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty.log").write_text("")
    for path in tmp_path.iterdir():
        assert "it contains no MLPerf event" in reason(path)
    assert "cannot be read" in reason(tmp_path)


def test_a_line_ends_at_line_feeds_only(tmp_path):
    """U+2028 and U+0085 need no escape in the texts of JSON."""
    log = whole_run()
    path = log.write(tmp_path / "mlperf.log")
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if '"submission_org"' in line)
    event = json.loads(lines[number].removeprefix(":::MLLOG "))
    event["value"] = "A\u2028B\u0085C"
    lines[number] = ":::MLLOG " + json.dumps(event, ensure_ascii=False)
    path.write_bytes("\r\n".join(lines).encode())
    assert read_logged_run(path).organization == "A\u2028B\u0085C"


def test_a_line_that_is_nested_without_end_is_damage(tmp_path):
    log = whole_run()
    log.lines.insert(3, ":::MLLOG " + "[" * 100_000)
    assert "damaged: line 4" in reason(log.write(tmp_path / "mlperf.log"))


def test_cut_off_at_any_line_it_is_refused_or_whole(tmp_path):
    lines = whole_run(cycles=2).lines
    path = tmp_path / "mlperf.log"
    for end in range(len(lines)):
        path.write_text("\n".join(lines[:end]) + "\n")
        assert reason(path)


def test_a_run_that_died_and_was_resumed_is_named_so(tmp_path):
    log = whole_run()
    log.lines.pop()
    path = log.write(tmp_path / "mlperf.log")
    (tmp_path / "mlperf_continued_1.log").write_text("")
    assert "was resumed" in reason(path)


def test_a_run_that_did_not_converge_is_a_run(tmp_path):
    run = read_logged_run(whole_run(status="aborted").write(tmp_path / "mlperf.log"))
    assert not run.is_converged
    assert math.isfinite(run.minutes)
