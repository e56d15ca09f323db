"""Logs of files and folders are found in the order of their numbers."""

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.mlperf.find_logs import CONTINUED_PATTERN, RESULT_PATTERN, find_logs


@pytest.fixture
def folder(tmp_path):
    for index in (10, 9, 0):
        (tmp_path / f"result_{index}.txt").touch()
    for name in ("run_2", "run_10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlperf.log").touch()
        (tmp_path / name / "mlperf_continued_1.log").touch()
    return tmp_path


def names(folder, *patterns, **options):
    return [str(path.relative_to(folder)) for path in find_logs(folder, *patterns, **options)]


def test_numbers_are_in_natural_order(folder):
    assert names(folder, RESULT_PATTERN) == ["result_0.txt", "result_9.txt", "result_10.txt"]


def test_folders_below_are_searched_only_if_asked_for(folder):
    assert names(folder, "mlperf.log") == []
    assert names(folder, "mlperf.log", CONTINUED_PATTERN, recursive=True) == [
        "run_2/mlperf.log",
        "run_2/mlperf_continued_1.log",
        "run_10/mlperf.log",
        "run_10/mlperf_continued_1.log",
    ]


def test_a_file_is_itself(folder):
    path = folder / "result_9.txt"
    assert find_logs(path, "mlperf.log") == [path]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match="absent does not exist; expected the log of a run"):
        find_logs(tmp_path / "absent", RESULT_PATTERN)
