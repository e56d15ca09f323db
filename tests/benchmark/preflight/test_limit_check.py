"""A time limit that is too short for the predicted runs is a warning, not a failure."""

import json
import math

import pytest

from benchmark.finding import NOTE, PASS
from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE, CountTable
from benchmark.plan.time_limit import format_time_limit, read_time_limit, time_limit
from benchmark.preflight.limit_check import RunPrediction, check_time_limit, predict_run
from benchmark.presets import build_preset
from openfold_opt.train.phases import find_phase
from tests.support.step_counts import small_step


@pytest.fixture
def counts_file(tmp_path):
    """Return a file with small counts of steps of this project."""
    steps = [small_step(code, 1) for code in (PROJECT, REFERENCE, NVIDIA)]
    path = tmp_path / "counts.json"
    table = CountTable(steps=steps)
    path.write_text(json.dumps(to_json(table)))
    return path


def of_seconds(seconds):
    return RunPrediction(seconds=seconds, source="test")


def test_a_long_limit_passes():
    found = check_time_limit("4:00:00", of_seconds(600), num_runs=10)
    assert found.state == PASS
    assert "the limit of the job is 4:00:00; 10 runs are predicted to take 1:55:00" in found.text


def test_a_short_limit_is_a_warning_with_the_needed_limit():
    found = check_time_limit("60", of_seconds(600), num_runs=10)
    assert found.state == NOTE and found.passed
    assert found.text.startswith("WARNING: the limit of the job is 1:00:00")
    assert "is not a result" in found.text and "sbatch --time=1:55:00" in found.text
    phase = check_time_limit("60", of_seconds(6000), num_runs=1, is_phase=True)
    assert "continues the phase" in phase.text


H100 = ["NVIDIA H100 80GB HBM3"] * 8


@pytest.mark.parametrize(
    ("gpus", "num_ranks", "preset", "reason"),
    [
        ([], 1, "demo", "no GPU in a node"),
        (["NVIDIA H100 80GB HBM3"] * 5, 5, "demo", "5 x NVIDIA H100 80GB HBM3 in a node"),
        (H100, 8, "demo", "a batch of 4 cannot be split"),
        (H100, 8, "finetuning", "no counts of"),
    ],
)
def test_an_unknown_time_has_a_reason(gpus, num_ranks, preset, reason, counts_file):
    phase = find_phase(build_preset(preset), "1")
    found = predict_run(phase, gpus, num_ranks=num_ranks, preset=preset, counts=counts_file)
    assert found.seconds is None
    finding = check_time_limit("4:00:00", found, num_runs=10)
    assert finding.state == NOTE and reason in finding.text and "not predicted" in finding.text


def test_a_run_is_predicted_for_the_gpus_of_a_node(counts_file):
    phase = find_phase(build_preset("mlperf_16x8_dap1"), "1")
    arguments = {"num_ranks": 128, "preset": "mlperf_16x8_dap1", "counts": counts_file}
    h100 = predict_run(phase, H100, **arguments)
    assert h100.source == "h100_sxm" and h100.seconds > 100
    h200 = predict_run(phase, ["NVIDIA H200"] * 8, **arguments)
    assert h200.source == "h200_sxm" and h200.seconds <= h100.seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("4:00:00", 14400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("2-00:00:10", 172810),
        ("UNLIMITED", math.inf),
    ],
)
def test_all_formats_of_sbatch_are_read(text, seconds):
    assert read_time_limit(text) == seconds
    assert read_time_limit(format_time_limit(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "-1", "unlimited"])
def test_other_formats_are_refused(text):
    with pytest.raises(ValueError, match="expected a format of sbatch --time"):
        read_time_limit(text)


def test_a_planned_limit_has_a_margin_and_is_a_multiple_of_a_quarter_of_an_hour():
    assert format_time_limit(time_limit(450, 10)) == "2:15:00"
    assert time_limit(1, 1) == 1800
