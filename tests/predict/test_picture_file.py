"""Pictures of a run: which files, the record, failures, and the option."""

from __future__ import annotations

import errno
import json
import os

from openfold_opt.predict.pictures import chain_picture
from tests.support.drawn_chains import pixels_of
from tests.support.fake_prediction import sequence

DRAWN = {"a": sequence(0)}


def record_of(tmp_path, stem="a"):
    text = (tmp_path / "out" / f"{stem}.json").read_text()
    return json.loads(text), text


def test_picture_of_the_best_structure_in_the_record(run, tmp_path):
    code, _, _ = run(DRAWN, "--pictures", weights=("v_ptm", "w"))
    assert code == 0
    out = tmp_path / "out"
    record, text = record_of(tmp_path)
    best, second = record["models"]
    assert best["files"]["picture"] == f"a_rank_1_{best['weights']}.png"
    assert "picture" not in second["files"]
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["a.png", best["files"]["picture"]]
    assert len({(out / name).read_bytes() for name in pictures}) == 1
    assert pixels_of((out / "a.png").read_bytes()).shape == (1200, 1600, 3)
    assert record["file_bytes"]["a.png"] == (out / "a.png").stat().st_size
    assert record["alignment_depth"] == [7] * 20
    assert sum("7, 7, 7" in line for line in text.splitlines()) == 1, "one line"
    (entry,) = json.loads((out / "summary.json").read_text())["chains"]
    assert "alignment_depth" not in entry


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_chain_without_its_picture_is_finished(run, tmp_path, monkeypatch):
    monkeypatch.setattr(chain_picture, "draw_plddt", fail_with(ZeroDivisionError("no font")))
    code, _, errors = run(DRAWN, "--pictures")
    record, _ = record_of(tmp_path)
    assert code == 0 and record["status"] == "finished"
    message = "the picture was not drawn (ZeroDivisionError: no font)"
    assert record["warnings"][-1] == message
    assert not any(name.endswith(".png") for name in record["file_bytes"])
    assert not list((tmp_path / "out").glob("*.png*"))


def test_a_full_disk_is_an_error(run, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("pathlib.Path.write_bytes", fail_with(full))
    code, output, errors = run(DRAWN, "--pictures")
    assert code != 0 and "No space left on device" in output + errors
    assert not (tmp_path / "out" / "a.json").exists()
    assert not list((tmp_path / "out").glob("a*")), "no temporary file stays"


def test_pictures_are_not_part_of_the_identity_of_a_run(run, tmp_path):
    assert run(DRAWN, "--no-pictures")[0] == 0
    before = (tmp_path / "out" / "a.json").read_bytes()
    code, _, _ = run(DRAWN | {"b": sequence(1)}, "--pictures")
    assert code == 0 and (tmp_path / "out" / "a.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["b.png"]
