"""`benchmark check`: published logs pass, damaged, failed and resumed ones do not."""

import errno
import json
import logging

import pytest

from benchmark.__main__ import main
from benchmark.mlperf.check import check_log, logs_of
from benchmark.mlperf.run_log import MARK, RunLog


def event(key, value=None, kind="POINT_IN_TIME", **metadata):
    fields = {
        "namespace": "",
        "time_ms": 1,
        "event_type": kind,
        "key": key,
        "value": value,
        "metadata": metadata,
    }
    return MARK + json.dumps(fields)


def open_log(*, accuracy=0.81, status="success", division="open", extra=()):
    """Lines of the shortest log that the open division accepts."""
    return [
        event("init_start", kind="INTERVAL_START"),
        event("cache_clear", True),
        event("submission_benchmark", "openfold"),
        event("submission_org", "org"),
        event("submission_division", division),
        event("submission_status", "research"),
        event("submission_platform", "1xmachine"),
        *extra,
        event("number_of_nodes", 1),
        event("accelerators_per_node", 0),
        event("global_batch_size", 2),
        event("init_stop", kind="INTERVAL_END"),
        event("run_start", kind="INTERVAL_START"),
        event("train_samples", 10),
        event("eval_samples", 2),
        event("epoch_start", kind="INTERVAL_START", epoch_num=80),
        event("epoch_stop", kind="INTERVAL_END", epoch_num=80),
        event("eval_start", kind="INTERVAL_START", epoch_num=80),
        event("eval_accuracy", accuracy, epoch_num=80),
        event("eval_stop", kind="INTERVAL_END", epoch_num=80),
        event("run_stop", kind="INTERVAL_END", status=status),
    ]


@pytest.fixture
def write(tmp_path):
    def write_lines(lines, name="run.log"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write_lines


@pytest.mark.parametrize("event", ["{}", "5", '{"key": "seed"}', "[1, 2]"])
def test_malformed_events_are_errors(tmp_path, event):
    path = tmp_path / "mlperf.log"
    path.write_text(f":::MLLOG {event}\n")
    result = check_log(path)
    assert not result.passed
    assert any("line 1 is not a complete event" in complaint for complaint in result.complaints)


def test_a_complete_open_log_passes(write):
    result = check_log(write(open_log()))
    assert result.passed, result.complaints
    assert result.division == "open"


def test_every_published_log_passes(shared):
    logs = sorted((shared / "facts" / "mlperf_hpc_v3.0_logs").rglob("result_*.txt"))
    assert len(logs) >= 40
    for path in logs:
        result = check_log(path)
        assert result.passed, (path, result.complaints)
        assert result.division == "closed"


def test_closed_division_asks_for_the_fixed_values(write):
    result = check_log(write(open_log(division="closed")))
    assert any("train_samples" in complaint for complaint in result.complaints)
    assert any("model_parameters_count" in complaint for complaint in result.complaints)


def test_a_published_log_with_one_value_changed_fails(shared, write):
    source = next((shared / "facts" / "mlperf_hpc_v3.0_logs").rglob("result_1.txt"))
    text = source.read_text().replace(
        '"key": "max_extra_msa", "value": 1024', '"key": "max_extra_msa", "value": 512'
    )
    assert text != source.read_text()
    result = check_log(write([text]))
    assert any("max_extra_msa" in complaint for complaint in result.complaints)


def test_target_not_reached_fails_unless_allowed(write):
    path = write(open_log(accuracy=0.6, status="aborted"))
    assert not check_log(path).passed
    assert check_log(path, below_target=True).passed


def test_allowing_a_low_score_forgives_nothing_else(write):
    lines = [line for line in open_log(accuracy=0.6) if "eval_samples" not in line]
    assert not check_log(write(lines), below_target=True).passed


def test_aborted_run_fails_even_above_the_target(write):
    assert not check_log(write(open_log(status="aborted"))).passed


def test_resumed_run_is_refused(write):
    result = check_log(write(open_log(extra=[event("run_continued", 1)])))
    assert any("resumed" in complaint for complaint in result.complaints)
    assert not check_log(
        write(open_log(extra=[event("run_continued", 1)])), below_target=True
    ).passed


def test_log_cut_off_in_a_line_fails(write):
    lines = open_log()
    lines[-1] = lines[-1][:60]
    result = check_log(write(lines))
    assert any("run_stop" in complaint for complaint in result.complaints)
    assert any("not a complete event" in complaint for complaint in result.complaints)


def test_events_are_found_behind_a_prefix(write):
    log = RunLog.read(write(["0: " + event("seed", 7), "loss 3.0"]))
    assert [entry.value for entry in log.events] == [7]
    assert log.damage == ()


def test_exit_code(write, capsys):
    good, bad = write(open_log()), write(open_log()[:-1], "bad.log")
    assert main(["check", str(good)]) == 0
    assert main(["check", str(good), str(bad)]) == 1
    assert f"FAIL {bad}" in capsys.readouterr().out


def test_missing_log_is_named(tmp_path, capsys):
    assert main(["check", str(tmp_path / "absent.log")]) == 2
    error = capsys.readouterr().err
    assert "absent.log is not a file" in error
    assert "Traceback" not in error


def test_checking_leaves_the_root_logger_alone(write):
    check_log(write(open_log()[:-1]))
    assert logging.getLogger().disabled is False


def test_all_logs_of_a_run_directory_are_checked(tmp_path, write, capsys):
    write(open_log(), "mlperf.log")
    for number in (10, 2, 1):
        write(open_log(), f"mlperf_continued_{number}.log")
    assert main(["check", str(tmp_path)]) == 0
    checked = [line.split()[1].rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert checked == ["mlperf.log", *(f"mlperf_continued_{number}.log" for number in (1, 2, 10))]


def test_a_copy_of_a_continued_log_is_not_one(tmp_path, write):
    write(open_log(), "mlperf.log")
    write(open_log(), "mlperf_continued_1 (copy).log")
    assert logs_of(tmp_path) == [tmp_path / "mlperf.log"]


def test_a_log_that_cannot_be_read_is_refused_in_one_line(write, capsys, monkeypatch):
    path = write(open_log())

    def fail(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(RunLog, "read", fail)
    assert main(["check", str(path)]) == 2
    message = capsys.readouterr().err
    assert f"{path} cannot be read: Permission denied" in message and message.count("\n") == 1


def test_a_directory_without_logs_is_refused(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    assert f"{tmp_path} has no mlperf.log" in capsys.readouterr().err


def test_below_target_is_named_where_it_would_be_enough(write, capsys):
    assert main(["check", str(write(open_log(accuracy=0.5, status="aborted")))]) == 1
    assert "--below-target accepts it" in capsys.readouterr().out
    damaged = [
        line
        for line in open_log(accuracy=0.5, status="aborted")
        if "seed" not in line and "epoch_stop" not in line
    ]
    assert main(["check", str(write(damaged))]) == 1
    assert "--below-target" not in capsys.readouterr().out
