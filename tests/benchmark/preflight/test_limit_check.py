"""A time limit that is too short for the predicted runs is a warning, not a failure."""

import pytest

from benchmark.finding import NOTE, PASS
from benchmark.plan.time_limit import format_time_limit, read_time_limit, time_limit
from benchmark.preflight.limit_check import check_time_limit


def test_a_long_limit_passes():
    found = check_time_limit("4:00:00", run_seconds=600, num_runs=10)
    assert found.state == PASS
    assert "the limit of the job is 4:00:00; 10 runs are predicted to take 1:55:00" in found.text


def test_a_short_limit_is_a_warning_with_the_needed_limit():
    found = check_time_limit("60", run_seconds=600, num_runs=10)
    assert found.state == NOTE and found.passed
    assert found.text.startswith("WARNING: the limit of the job is 1:00:00")
    assert "is not a result" in found.text and "sbatch --time=1:55:00" in found.text
    phase = check_time_limit("60", run_seconds=6000, num_runs=1, is_phase=True)
    assert "continues the phase" in phase.text


def test_an_unknown_time_is_said():
    found = check_time_limit("4:00:00", run_seconds=None, num_runs=10)
    assert found.state == NOTE and "not predicted" in found.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("4:00:00", 14400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("2-00:00:10", 172810),
    ],
)
def test_all_formats_of_sbatch_are_read(text, seconds):
    assert read_time_limit(text) == seconds
    assert read_time_limit(format_time_limit(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "-1", "UNLIMITED"])
def test_other_formats_are_refused(text):
    with pytest.raises(ValueError, match="expected a format of sbatch --time"):
        read_time_limit(text)


def test_a_planned_limit_has_a_margin_and_is_a_multiple_of_a_quarter_of_an_hour():
    assert format_time_limit(time_limit(450, 10)) == "2:15:00"
    assert time_limit(1, 1) == 1800
