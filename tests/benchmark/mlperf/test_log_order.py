"""A log must be that of one run: every command refuses ten ways to alter one."""

import json
import re
import shutil

import pytest

from benchmark.__main__ import main
from benchmark.finding import FAIL
from benchmark.mlperf.check import check_log
from benchmark.mlperf.log_order import order_complaints
from benchmark.mlperf.run_log import MARK, Event, RunLog
from benchmark.results.logged_run import LogError, read_logged_run
from benchmark.submission.consistency import check_runs
from benchmark.submission.submitted_run import find_runs
from tests.support.altered_logs import ALTERATIONS
from tests.support.demo_logs import DESCRIPTION, write_demo_log
from tests.support.synthetic_logs import MadeLog, whole_run

SYSTEMS = (
    "Clemson__18xR750-2xA100-PCIe-80GB__strong",
    "HPE+LBNL__perlmutter_224x4__strong",
    "NVIDIA__eos_n256_ngc23.09_pytorch__weak",
    "NVIDIA__eos_n260_ngc23.09_pytorch__strong",
    "TACC__lonestar6-pytorch__strong",
)


def errors_of(path):
    """Damage and complaints about the order. mlperf-logging accepts some of these logs."""
    log = RunLog.read(path)
    return [*log.damage, *order_complaints(log.events)]


def alter(source, target, name):
    alteration, reason = ALTERATIONS[name]
    lines = alteration(source.read_text().splitlines())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n")
    return reason


@pytest.fixture
def published(shared):
    return shared / "facts" / "mlperf_hpc_v3.0_logs"


def test_all_published_logs_are_in_order(published):
    logs = sorted(published.rglob("result_*.txt"))
    assert len(logs) == 56
    assert {path: errors_of(path) for path in logs if errors_of(path)} == {}


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_altered_published_logs_are_refused(published, tmp_path, system, name):
    for source in sorted((published / system).glob("result_*.txt")):
        reason = alter(source, tmp_path / "altered.log", name)
        found = errors_of(tmp_path / "altered.log")
        assert any(reason in complaint for complaint in found), (source, found)
        assert all(re.search(r"\blines? \d|^and \d", each) for each in found), found
    assert not check_log(tmp_path / "altered.log").passed
    with pytest.raises(LogError):
        read_logged_run(tmp_path / "altered.log")


def test_made_logs_are_in_order(tmp_path):
    assert errors_of(whole_run().write(tmp_path / "a.log")) == []
    assert errors_of(whole_run(status="aborted").write(tmp_path / "b.log")) == []
    assert errors_of(write_demo_log(tmp_path / "c.log", seed=1)) == []


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_logs_are_refused_by_check_and_summarize(tmp_path, capsys, name):
    """Every command says which log, and what is wrong with it."""
    for index in range(3):
        write_demo_log(tmp_path / "set" / f"result_{index}.txt", seed=index, minutes=10)
    odd = tmp_path / "set" / "result_1.txt"
    reason = alter(odd, odd, name)
    assert main(["check", *map(str, sorted((tmp_path / "set").iterdir()))]) == 1
    shown = capsys.readouterr().out
    assert f"FAIL {odd}" in shown and reason in shown
    assert shown.count("PASS") == 2
    assert main(["check", "--below-target", str(odd)]) == 1
    capsys.readouterr()
    assert main(["summarize", str(tmp_path / "set")]) == 1
    shown = capsys.readouterr().out
    assert str(odd) in shown and "2 (+1 skipped)" in shown


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_made_logs_are_refused(tmp_path, name):
    path = whole_run(seed=1).write(tmp_path / "mlperf.log")
    reason = alter(path, path, name)
    with pytest.raises(LogError) as caught:
        read_logged_run(path)
    found = errors_of(path)
    assert any(reason in complaint for complaint in found)
    assert found[0] in str(caught.value)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_ten_runs_with_one_altered_log_are_refused_by_submit(tmp_path, name):
    for index in range(10):
        write_demo_log(tmp_path / f"result_{index}.txt", seed=index, minutes=10)
    odd = tmp_path / "result_4.txt"
    reason = alter(odd, odd, name)
    findings = check_runs(find_runs([tmp_path]), description=DESCRIPTION, scaling="strong")
    (finding,) = [each for each in findings if each.subject == "compliance"]
    assert finding.state == FAIL and finding.text.startswith("result_4, from")
    assert reason in finding.text


@pytest.mark.parametrize("case", ["run_stop_before_run_start", "two_events_on_a_line"])
def test_bug_inputs_are_refused(shared, capsys, case):
    for log in sorted((shared / "bug_inputs" / case).glob("*.log")):
        assert main(["check", "--below-target", str(log)]) == 1
        assert main(["summarize", str(log)]) == 2
        shown = capsys.readouterr()
        wanted = "times that do not decrease" if case.startswith("run_stop") else "has 2 events"
        assert wanted in shown.out and wanted in shown.out.partition("\n")[2]


def event(key, *, line, time_ms=0, value=None, **metadata):
    return Event(
        namespace="",
        event_type="POINT_IN_TIME",
        key=key,
        line=line,
        time_ms=time_ms,
        value=value,
        metadata=metadata,
    )


def test_errors_name_lines_and_values():
    events = [event("run_start", line=3, time_ms=50), event("eval_start", line=9, time_ms=20)]
    (complaint,) = order_complaints(events)
    assert complaint == (
        "line 9: eval_start has time_ms 20, 30 ms before run_start on line 3 (50); "
        "expected times that do not decrease"
    )


@pytest.mark.parametrize("time_ms", [-1, 1.0, 2.5, "noon", None, True, float("nan"), 2**63])
def test_a_time_is_a_whole_number(time_ms):
    (complaint,) = order_complaints([event("seed", line=1, time_ms=time_ms)])
    assert f"line 1: time_ms of seed is {time_ms!r}" in complaint


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [event("tracked_stats", line=1, value={"staging_duration": -2.0})],
            "staging_duration of tracked_stats is -2.0",
        ),
        (
            [event("staging_stop", line=1, staging_duration=-0.5)],
            "staging_duration of staging_stop is -0.5",
        ),
        (
            [event("eval_stop", line=1, epoch_num=40), event("eval_start", line=2, epoch_num=40)],
            "is before its eval_start on line 2",
        ),
        (
            [event("eval_accuracy", line=1, value=0.1), event("run_start", line=2)],
            "eval_accuracy is before run_start on line 2",
        ),
        (
            [event("epoch_stop", line=1, epoch_num=80), event("epoch_stop", line=2, epoch_num=40)],
            "epoch_stop at 40 samples does not come after 80",
        ),
        (
            [
                event("eval_accuracy", line=1, value=0.1, epoch_num=80),
                event("eval_accuracy", line=2, value=0.9, epoch_num=80),
            ],
            "eval_accuracy at 80 samples is also on line 1",
        ),
        (
            [
                event("run_start", line=1),
                event("eval_accuracy", line=2, value=0.79),
                event("run_stop", line=3, status="success"),
            ],
            "the best eval_accuracy before it is 0.79 on line 2; expected 0.8 or more",
        ),
        (
            [
                event("run_start", line=1),
                event("run_stop", line=2, status="success"),
                event("eval_accuracy", line=3, value=0.9),
            ],
            "there is no eval_accuracy before it",
        ),
        (
            [
                event("run_start", line=1),
                event("eval_accuracy", line=2, value=float("nan")),
                event("run_stop", line=3, status="success"),
            ],
            "there is no eval_accuracy before it",
        ),
    ],
)
def test_each_fault_is_one_error(events, expected):
    (complaint,) = order_complaints(events)
    assert expected in complaint


def test_many_errors_of_one_kind_are_counted():
    events = [event("seed", line=line, time_ms=-line) for line in range(1, 21)]
    assert order_complaints(events)[-1] == "and 15 more like the last one"


def test_the_target_is_that_of_the_log(tmp_path):
    """A short run for tests has another target."""
    log = whole_run(target_avg_lddt_ca_value=0.9)
    found = errors_of(log.write(tmp_path / "a.log"))
    assert any("expected 0.9 or more" in text for text in found)
    log = MadeLog(target_avg_lddt_ca_value=0.1)
    log.event("run_start")
    log.evaluate(0.2, seconds=5, samples=10)
    log.event("run_stop", status="success")
    assert errors_of(log.write(tmp_path / "b.log")) == []


def test_a_clock_that_was_set_forward_is_found(tmp_path):
    """Only the monotonic clock knows: the times of the events are in order."""
    path = write_demo_log(tmp_path / "mlperf.log", seed=1, minutes=10)
    lines = path.read_text().splitlines()
    last = json.loads(lines[-1].partition(MARK)[2])
    last["metadata"]["monotonic_seconds"] -= 60
    path.write_text("\n".join([*lines[:-1], MARK + json.dumps(last)]) + "\n")
    (complaint,) = errors_of(path)
    assert "by the wall clock" in complaint and "expected a difference of at most 1.5" in complaint


def altered_submission(published, system, folder, name):
    """Ten published logs, the second of them altered."""
    logs = sorted((published / system).glob("result_*.txt"))[:10]
    folder.mkdir()
    for index, log in enumerate(logs):
        shutil.copyfile(log, folder / f"result_{index}.txt")
    return alter(logs[1], folder / "result_1.txt", name)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_submit_refuses_ten_published_logs_with_one_altered(
    published, shared, tmp_path, capsys, monkeypatch, name
):
    """Without mlperf-logging's own checkers, which take a minute and accept some of these logs."""
    monkeypatch.setattr("benchmark.submission.checkers.Checkers.findings", lambda self: iter(()))
    reason = altered_submission(published, SYSTEMS[3], tmp_path / "logs", name)
    system = tmp_path / "eos_n260.json"
    shutil.copyfile(shared / "facts" / "system_example.json", system)
    command = ["submit", str(tmp_path / "logs"), "--system", str(system)]
    command += ["--out", str(tmp_path / "out")]
    assert main(command) == 1
    shown = capsys.readouterr().out
    assert "FAIL  compliance: result_1" in shown and reason in shown
    assert "failed in compliance" in shown
