"""`convert --dry-run`: counts, an estimate, and nothing written."""

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


def test_it_counts_and_writes_nothing(raw, tmp_path, capsys):
    assert main(command(raw, tmp_path / "out", "--dry-run")) == 0
    report = capsys.readouterr().out
    assert "entries:           8 files" in report and "1 shards, 0 of them finished" in report
    assert "alignment folders: 8," in report
    assert "8 sampled" in report and "time with 1 process," in report
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_is_not_counted_again(raw, tmp_path, capsys):
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

    found = dry_run.estimate(
        [100] * 50 + [300] * 50, convert, size_of=lambda size: size, what="units"
    )
    assert found.num_sampled == 4
    assert (found.seconds, found.low, found.high) == pytest.approx((200.0, 200.0, 200.0))


def test_bad_input_is_said_as_in_conversion(raw, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(command(tmp_path / "empty", tmp_path / "out", "--dry-run")) == 1
    assert "does not exist" in capsys.readouterr().err
