"""Output of `inspect` and the record of `verify`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from openfold_opt.protein.index import ShardIndex, verified_checksum
from tests.support import raw_data


@pytest.fixture
def data_dir(tmp_path) -> Path:
    raw = raw_data.write_raw_data(tmp_path / "raw_files")
    assert main(raw_data.convert_arguments(raw, tmp_path / "data")) == 0
    return tmp_path / "data"


def test_data_set(data_dir, capsys):
    capsys.readouterr()
    assert main(["inspect", str(data_dir)]) == 0
    text = capsys.readouterr().out
    assert (
        ShardIndex.load(data_dir).checksum in text
        and "verified            no" in text
        and "chains              2\n" in text
    )


def test_chain(data_dir, capsys):
    capsys.readouterr()
    assert main(["inspect", str(data_dir), "1abc_A"]) == 0
    text = capsys.readouterr().out
    assert (
        raw_data.SEQUENCE_1ABC in text
        and "1abc_A, 2 rows" in text
        and "2abc_A" in text
        and "2.1 angstrom" in text
    )


def test_arrays(data_dir, tmp_path):
    assert main(["inspect", str(data_dir), "1abc_A", "--npz", str(tmp_path / "x.npz")]) == 0
    arrays = np.load(tmp_path / "x.npz")
    shapes = {name: (arrays[name].dtype.str[1:], arrays[name].shape) for name in arrays.files}
    assert shapes == {
        "sequence": ("U22", ()),
        "residue_index": ("i4", (22,)),
        "all_atom_positions": ("f4", (22, 37, 3)),
        "all_atom_mask": ("b1", (22, 37)),
        "msa": ("u1", (2, 22)),
        "deletion": ("i4", (2, 22)),
        "resolution": ("f8", ()),
        "release_date": ("U10", ()),
        "template_aatype": ("i4", (1, 22, 22)),
        "template_all_atom_positions": ("f4", (1, 22, 37, 3)),
        "template_all_atom_mask": ("f4", (1, 22, 37)),
        "template_sum_probs": ("f4", (1, 1)),
    }
    assert main(["inspect", str(data_dir), "--npz", str(tmp_path / "y.npz")]) == 1


def test_arrays_that_cannot_be_written_are_named(data_dir, tmp_path, capsys):
    absent = tmp_path / "absent" / "x.npz"
    for path, message in (
        ("/dev/full", "--npz /dev/full is not a regular file; name another one"),
        (tmp_path, f"--npz {tmp_path} is not a regular file; name another one"),
        (absent, f"{absent}: No such file or directory"),
    ):
        assert main(["inspect", str(data_dir), "1abc_A", "--npz", str(path)]) == 1
        assert capsys.readouterr().err == f"data_prep inspect: {message}\n"


def test_verify_writes_a_record(data_dir, capsys):
    assert verified_checksum(data_dir) is None
    assert main(["verify", str(data_dir)]) == 0
    assert verified_checksum(data_dir) == ShardIndex.load(data_dir).checksum
    assert json.loads((data_dir / "verified.json").read_text())["num_shards"] == 2
    capsys.readouterr()
    assert main(["inspect", str(data_dir)]) == 0
    assert "verified            yes" in capsys.readouterr().out
    for text in ("{", "[" * 100_000):
        (data_dir / "verified.json").write_text(text)
        assert verified_checksum(data_dir) is None


def test_inspect_of_an_interrupted_conversion_advises_to_resume(data_dir, capsys):
    (data_dir / "index.h5").unlink()
    capsys.readouterr()
    assert main(["inspect", str(data_dir)]) == 1
    assert "run the same `convert` again to resume it" in capsys.readouterr().err


def test_help(capsys):
    for command in ([], ["convert"], ["verify"], ["inspect"], ["download"]):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--help"])
        assert caught.value.code == 0
    assert "--missing-alignments {error,query}" in capsys.readouterr().out
