"""Checks of the logs of a submission."""

import json

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL, NOTE, PASS
from benchmark.run.output_directory import OutputDirectory
from benchmark.submission.consistency import check_runs
from benchmark.submission.submitted_run import find_runs
from tests.benchmark.mlperf.test_check import event
from tests.support.demo_logs import DESCRIPTION, write_demo_log, write_record

COMMIT = "1" * 40


@pytest.fixture
def runs(tmp_path):
    """Ten output directories of synthetic runs."""
    for index in range(10):
        write_demo_log(tmp_path / f"run_{index}" / "mlperf.log", seed=index)
        write_record(tmp_path / f"run_{index}", commit=COMMIT)
    return tmp_path


def problems_of(folder, *, scaling="strong", **changes):
    findings = check_runs(find_runs([folder]), description=DESCRIPTION | changes, scaling=scaling)
    return {finding.subject: finding for finding in findings if finding.state in (FAIL, NOTE)}


def test_ten_runs_of_one_system_have_no_findings(runs):
    assert problems_of(runs) == {}


def test_logs_are_in_numerical_order(tmp_path):
    for index in (0, 1, 2, 10):
        write_demo_log(tmp_path / f"result_{index}.txt", seed=index)
    assert [log.path.name for log in find_runs([tmp_path])] == [
        "result_0.txt",
        "result_1.txt",
        "result_2.txt",
        "result_10.txt",
    ]


def test_paths_without_logs_are_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="does not exist"):
        find_runs([tmp_path / "absent"])
    with pytest.raises(BenchmarkError, match="has no logs"):
        find_runs([tmp_path])
    log = write_demo_log(tmp_path / "mlperf.log", seed=1)
    with pytest.raises(BenchmarkError, match="given more than once"):
        find_runs([log, tmp_path])


@pytest.mark.parametrize(
    ("count", "scaling", "expected"),
    [
        (9, "strong", "make 1 more"),
        (11, "strong", "median of all such sets"),
        (9, "weak", "at least 10"),
    ],
)
def test_wrong_numbers_of_runs_are_reported(runs, count, scaling, expected):
    if count == 11:
        write_demo_log(runs / "run_10" / "mlperf.log", seed=10)
        write_record(runs / "run_10", commit=COMMIT)
    else:
        (runs / "run_9" / "mlperf.log").unlink()
    finding = problems_of(runs, scaling=scaling)["number of runs"]
    assert expected in finding.text + finding.remedy


def test_throughput_may_have_more_instances_on_more_nodes(runs):
    write_demo_log(runs / "run_10" / "mlperf.log", seed=10)
    assert problems_of(runs, scaling="weak", number_of_nodes="11").keys() == {"commit"}
    assert problems_of(runs, scaling="strong", number_of_nodes="11")["system"].state == FAIL


def test_a_repeated_seed_is_reported(runs):
    write_demo_log(runs / "run_7" / "mlperf.log", seed=3)
    assert "seed 3 in result_3, result_7" in problems_of(runs)["seeds"].text


def test_a_different_batch_size_is_reported(runs):
    write_demo_log(runs / "run_7" / "mlperf.log", seed=7, global_batch_size=4)
    finding = problems_of(runs)["one configuration"]
    assert (
        "global_batch_size: 2 in result_0, result_1, result_2 and 6 more, 4 in result_7"
        in finding.text
    )


def test_a_different_configuration_field_is_reported(runs):
    write_record(runs / "run_7", commit=COMMIT, config={"data": {"crop_size": 64}})
    assert "config.json config.data.crop_size: 36" in problems_of(runs)["one configuration"].text


def test_a_different_accelerator_is_reported(runs):
    write_record(runs / "run_7", commit=COMMIT, machine={"accelerator": "NVIDIA A100"})
    assert '"NVIDIA A100" in result_7' in problems_of(runs)["one configuration"].text


def test_a_different_commit_is_reported(runs):
    write_record(runs / "run_7", commit="2" * 40)
    finding = problems_of(runs)["commit"]
    assert finding.state == FAIL and f'"{"2" * 40}" in result_7' in finding.text


def test_uncommitted_changes_are_refused(runs):
    for index in range(10):
        write_record(runs / f"run_{index}", commit=f"{COMMIT}-dirty")
    finding = problems_of(runs)["commit"]
    assert finding.state == FAIL and "not committed" in finding.text


@pytest.mark.parametrize("commit", ["not a checkout", "unknown (git does not run)"])
def test_runs_without_a_commit_are_refused(runs, commit):
    """Runs of an image that was built without REVISION have no commit."""
    write_record(runs / "run_7", commit=commit)
    finding = problems_of(runs)["commit"]
    assert finding.state == FAIL and f"result_7: {commit}" in finding.text
    assert "REVISION" in finding.remedy


def test_the_number_of_recomputed_blocks_may_differ(runs):
    for index, number in enumerate((0, 12)):
        config = {"data": {"crop_size": 36}, "recompute": {"evoformer_stack": number}}
        write_record(runs / f"run_{index}", commit=COMMIT, config=config)
    assert problems_of(runs) == {}


def test_a_repeated_start_time_is_reported(runs):
    copy = (runs / "run_3" / "mlperf.log").read_text()
    copy = copy.replace('"key": "seed", "value": 3', '"key": "seed", "value": 7')
    (runs / "run_7" / "mlperf.log").write_text(copy)
    finding = problems_of(runs)["start times"]
    assert finding.state == FAIL and "ms in result_3, result_7" in finding.text
    assert problems_of(runs, scaling="weak")["start times"].state == FAIL


def test_throughput_instances_may_start_together(runs):
    """Ten logs with the same start time are not ten sequential runs."""
    for index in range(10):
        log = runs / f"run_{index}" / "mlperf.log"
        events = [json.loads(line.partition(" ")[2]) for line in log.read_text().splitlines()]
        for each in events:
            each["time_ms"] -= 3_600_000 * index
        start = next(each for each in events if each["key"] == "run_start")
        shift = 1_900_000_000_000 - start["time_ms"]
        for each in events:
            # Instances that start together have different durations.
            each["time_ms"] += shift + (90 * index if each["key"] == "run_stop" else 0)
        log.write_text("".join(f":::MLLOG {json.dumps(each)}\n" for each in events))
    assert "ms in result_0, result_1, result_2 and 7 more" in problems_of(runs)["start times"].text
    assert "start times" not in problems_of(runs, scaling="weak")


def test_published_logs_pass_the_checks(shared):
    """All 56 logs pass the checks of `submit`; the RCP checker checks their convergence."""
    folders = sorted((shared / "facts" / "mlperf_hpc_v3.0_logs").iterdir())
    for folder in (folder for folder in folders if folder.is_dir()):
        scaling = "weak" if folder.name.endswith("weak") else "strong"
        description = DESCRIPTION | {"division": "closed"}
        findings = check_runs(find_runs([folder]), description=description, scaling=scaling)
        states = {finding.subject: finding.state for finding in findings}
        subjects = ("number of runs", "compliance", "seeds", "start times", "one configuration")
        for subject in subjects:
            assert states[subject] == PASS, (folder, subject)


def test_runs_without_a_record_are_reported(runs):
    (runs / "run_7" / "config.json").unlink()
    finding = problems_of(runs)["commit"]
    assert finding.state == NOTE and "result_7" in finding.text


def test_one_run_may_miss_the_target_and_two_may_not(runs):
    write_demo_log(runs / "run_2" / "mlperf.log", seed=2, scores=(0.5, 0.6))
    assert problems_of(runs)["target"].state == NOTE
    assert problems_of(runs, scaling="weak")["target"].state == FAIL
    write_demo_log(runs / "run_3" / "mlperf.log", seed=3, scores=(0.5, 0.6))
    finding = problems_of(runs)["target"]
    assert finding.state == FAIL and "result_2, result_3 did not reach the target" in finding.text


def test_incomplete_and_resumed_runs_are_refused(runs):
    log = runs / "run_2" / "mlperf.log"
    log.write_text("\n".join(log.read_text().splitlines()[:-1]) + "\n")
    write_demo_log(runs / "run_5" / "mlperf.log", seed=5, num_resumptions=1)
    (runs / "run_8" / "mlperf_continued_1.log").touch()
    findings = check_runs(find_runs([runs]), description=DESCRIPTION, scaling="strong")
    texts = [finding.text for finding in findings if finding.subject == "compliance"]
    assert len(texts) == 3
    assert "result_2" in texts[0] and "run_stop" in texts[0]
    assert "result_5" in texts[1] and "resumed run" in texts[1]
    assert "result_8" in texts[2] and "resumed by another process" in texts[2]


def test_open_logs_are_refused_in_the_closed_division(runs):
    """The package checker uses the division that a log names, without this check."""
    assert "expected closed" in problems_of(runs, division="closed")["compliance"].text


def test_logs_and_system_must_agree(runs):
    assert (
        "number_of_nodes is 1 in the logs and 4"
        in problems_of(runs, number_of_nodes="4")["system"].text
    )
    finding = problems_of(runs, submitter="Somebody")["system"]
    assert finding.state == NOTE and "'Example'" in finding.text


def write_power(
    folder,
    *,
    keys=("power_measurement_start", "power_reading", "power_measurement_stop"),
    name="node_0.txt",
):
    (folder / "power").mkdir(exist_ok=True)
    (folder / "power" / name).write_text("\n".join(event(key, 100.0) for key in keys) + "\n")


def test_power_readings_must_be_complete_for_every_run(runs):
    for index in range(10):
        write_power(runs / f"run_{index}")
    assert problems_of(runs) == {}
    write_power(runs / "run_4", keys=("power_reading",))
    write_power(runs / "run_5", name="node_2.txt")
    (runs / "run_6" / "power" / "node_0.txt").unlink()
    text = problems_of(runs)["power"].text
    assert "node_0.txt has no event power_measurement_start" in text
    assert "result_5: found node_0.txt, node_2.txt" in text
    assert "result_6 has no power/node_0.txt" in text


def test_power_measurement_may_start_before_the_run(tmp_path):
    write_power(tmp_path)
    directory = OutputDirectory(tmp_path, identity={}, seed=None, new_seed=1)
    directory.close()
    assert directory.seed == 1 and not directory.continued
