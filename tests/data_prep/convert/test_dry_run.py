"""`convert --dry-run` prints counts and an estimate and writes nothing."""

import pytest

from data_prep.__main__ import main
from data_prep.convert import dry_run


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw") / "raw"
    assert main(["synthesize", "--out", str(out), "--chains", "8"]) == 0
    return out


def command(raw, out, *options):
    data = [
        "--pdb-mmcif",
        str(raw / "pdb_mmcif"),
        "--open-protein-set",
        str(raw / "open_protein_set"),
    ]
    return ["convert", *data, "--out", str(out), *options]


def test_input_is_counted_and_nothing_is_written(raw, tmp_path, capsys):
    assert main(command(raw, tmp_path / "out", "--dry-run")) == 0
    report = capsys.readouterr().out
    assert "entries:           8 files" in report and "1 shards, 0 of them finished" in report
    assert "alignment folders: 8," in report
    assert "8 sampled" in report and "time with 1 process," in report
    assert list(tmp_path.iterdir()) == []


def test_finished_shards_are_not_counted(raw, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(raw, out)) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(command(raw, out, "--dry-run")) == 0
    report = capsys.readouterr().out
    assert (
        "1 shards, 1 of them finished" in report and "entries     0.0 s (0.0 s to 0.0 s" in report
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_time_is_scaled_by_bytes(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(dry_run, "SAMPLE_UNITS", 4)

    def convert(size):
        clock["now"] += size / 100

    estimate = dry_run.estimate(
        [100] * 50 + [300] * 50, convert, size_of=lambda size: size, what="units"
    )
    assert estimate.num_sampled == 4
    assert (estimate.seconds, estimate.low, estimate.high) == pytest.approx((200.0, 200.0, 200.0))


def test_bad_input_gives_the_error_of_conversion(raw, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(command(tmp_path / "empty", tmp_path / "out", "--dry-run")) == 1
    assert "does not exist" in capsys.readouterr().err
