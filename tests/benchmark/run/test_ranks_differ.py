"""Ranks that differ in data, batch, preset or code end together before the clock starts, with both
values and both ranks.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from openfold_opt.protein.index import encode_index
from openfold_opt.protein.shard_format import INDEX_FILE_NAME
from tests.support.gloo_ranks import free_port, launch_variables

ROOT = pathlib.Path(__file__).resolve().parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What may differ between two ranks."""

    preset: str = "tiny"
    data: str = "shards"
    checkout: pathlib.Path = ROOT
    changes: dict = dataclasses.field(default_factory=dict)


@pytest.fixture
def data(tmp_path):
    """Two data sets of no chains, and an empty directory."""
    for name, num_entries in (("shards", 1), ("old_shards", 2)):
        (tmp_path / name).mkdir()
        attributes = {
            "missing_alignments": "error",
            "num_entries": num_entries,
            "num_rejected_entries": 0,
        }
        (tmp_path / name / INDEX_FILE_NAME).write_bytes(encode_index((), (), attributes=attributes))
    (tmp_path / "empty").mkdir()
    return tmp_path


def start(folder, place: Place, rank: int, port: int) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.tiny_benchmark",
            "run",
            "--preset",
            place.preset,
            "--data-dir",
            str(folder / place.data),
            "--output-dir",
            str(folder / "out"),
            "--seed",
            "3",
        ],
        cwd=place.checkout,
        env={
            **os.environ,
            **launch_variables(rank, 2, port=port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(place.checkout),
            "TINY_REAL_INDEX": "1",
            "TINY_CHANGES": json.dumps(place.changes),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refusals(folder, first: Place, second: Place) -> list[str]:
    """What two ranks say that must both end with exit code 2 before run_start."""
    port = free_port()
    ranks = [start(folder, place, rank, port) for rank, place in enumerate((first, second))]
    try:
        said = [rank.communicate(timeout=240)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [2, 2], said
    log = folder / "out" / "mlperf.log"
    assert not log.exists() or "run_start" not in log.read_text()
    for text in said:
        assert text.startswith("benchmark run: ") and "Traceback" not in text, text
    return said


def assert_named(said: list[str], *words: str) -> None:
    for text in said:
        assert "rank 0 on " in text and "rank 1 on " in text
        assert [word for word in words if word not in text] == [], text


def test_another_data_set(data):
    said = refusals(data, Place(), Place(data="old_shards"))
    assert_named(said, "the data set's checksum is ")


def test_another_batch(data):
    said = refusals(data, Place(), Place(changes={"local_batch_size": 2}))
    assert_named(said, "the configuration's local_batch_size is 1 on rank 0", "2 on rank 1")


def test_another_preset_and_number_of_steps(data):
    said = refusals(data, Place(), Place(preset="tiny_target", changes={"max_steps": 9}))
    assert_named(
        said,
        "the preset is tiny on rank 0",
        "tiny_target on rank 1",
        "max_steps is 8 on rank 0",
        "9 on rank 1",
    )


def test_other_code(data, tmp_path):
    other = tmp_path / "checkout"
    for package in ("openfold_opt", "benchmark", "tests", "data_prep"):
        shutil.copytree(
            ROOT / package, other / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    changed = other / "openfold_opt" / "train" / "optim" / "lr_schedule.py"
    changed.write_text(changed.read_text() + "\n# one line more\n")
    (other / "benchmark" / "extra.py").write_text(
        '"""A file that the first rank does not have."""\n'
    )
    said = refusals(data, Place(), Place(checkout=other))
    assert_named(
        said,
        "the source file openfold_opt/train/optim/lr_schedule.py is ",
        "benchmark/extra.py is nothing on rank 0",
    )


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_data_directory_on_one_rank(data, empty):
    places = [Place(), Place()]
    places[empty] = Place(data="empty")
    said = refusals(data, *places)
    for text in said:
        assert "empty is empty; expected shards made by" in text
    if empty == 1:
        assert all("rank 1 on " in text for text in said)
