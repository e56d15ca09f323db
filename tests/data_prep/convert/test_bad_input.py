"""Bad raw files and bad data directories: clear messages, correct exit codes, no lost data."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import h5py
import pytest

from data_prep.__main__ import main
from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.shard_format import ShardError
from tests.support import raw_data


@pytest.fixture
def raw(tmp_path) -> Path:
    return raw_data.write_raw_data(tmp_path / "raw_files")


def run_convert(raw, out, *options) -> int:
    return main(raw_data.convert_arguments(raw, out, *options))


def contents(data_dir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(data_dir.glob("*")) if path.is_file()}


def assert_nothing_half_written(data_dir):
    assert not list(data_dir.rglob("*.tmp"))
    for path in data_dir.glob("*.h5"):
        with h5py.File(path, "r") as file:
            assert file.attrs["format_version"] == shard_format.FORMAT_VERSION


def rejected(data_dir) -> dict[str, str]:
    with open(data_dir / "rejected.csv", newline="") as file:
        return {row["entry"]: row["reason"] for row in csv.DictReader(file)}


def test_good_data(raw, tmp_path, capsys):
    assert run_convert(raw, tmp_path / "out") == 0
    reader = ShardReader(tmp_path / "out")
    assert [chain.chain_id for chain in reader.index.chains] == ["1abc_A", "2abc_A"]
    assert [chain.cluster_id for chain in reader.index.chains] == [1, 1]
    assert reader.alignment("1abc_A").dense_deletions().sum() == 2
    assert [hit.name for hit in reader.template_hits("1abc_A")] == ["2abc_A"]
    assert "2 chains of 2 entries" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "reason", "exit_code"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "damaged file", 3),
        (
            lambda path: path.write_bytes(
                path.read_bytes()[:100] + b"\0" * 50 + path.read_bytes()[150:]
            ),
            "damaged file",
            3,
        ),
        (lambda path: path.write_bytes(b""), "damaged file", 3),
        (
            lambda path: raw_data.write_entry(
                path.parents[3],
                "3abc",
                "data_3ABC\n_entry.id 3ABC\n_struct_asym.id A\n_struct_asym.entity_id 1\n",
            ),
            "_entity_poly_seq",
            0,
        ),
        (
            lambda path: raw_data.write_entry(
                path.parents[3],
                "3abc",
                raw_data.cif_text("3abc", "AAAA", monomer_type="'RNA linking'"),
            ),
            "no protein",
            0,
        ),
        (
            lambda path: raw_data.write_entry(
                path.parents[3], "3abc", raw_data.cif_text("3xyz", "AAAA")
            ),
            "_entry.id",
            0,
        ),
        (
            lambda path: raw_data.write_entry(
                path.parents[3],
                "3abc",
                raw_data.cif_text("3abc", "AAAA").replace(" 1.00 20.0", " ? 20.0"),
            ),
            "occupancy",
            0,
        ),
        (
            lambda path: raw_data.write_entry(
                path.parents[3], "3abc", raw_data.cif_text("3abc", "AAAA")[:-40]
            ),
            "not a valid CIF file",
            3,
        ),
    ],
)
def test_only_the_bad_entry_is_rejected(raw, tmp_path, damage, reason, exit_code, capsys):
    damage(raw_data.write_entry(raw, "3abc", raw_data.cif_text("3abc", raw_data.SEQUENCE_1ABC)))
    assert run_convert(raw, tmp_path / "out") == exit_code
    assert list(rejected(tmp_path / "out")) == ["3abc"]
    assert reason in rejected(tmp_path / "out")["3abc"]
    assert len(ShardIndex.load(tmp_path / "out").chains) == 2
    assert "rejected entries: 1" in capsys.readouterr().out
    assert run_convert(raw, tmp_path / "strict", "--strict") == (1 if exit_code else 0)
    assert (f"3abc: {reason}" in capsys.readouterr().err) == bool(exit_code)
    assert (tmp_path / "strict" / "index.h5").exists() == (not exit_code)


def test_repaired_entry_is_converted(raw, tmp_path):
    path = raw_data.write_entry(raw, "3abc", raw_data.cif_text("3abc", raw_data.SEQUENCE_1ABC))
    original_contents = path.read_bytes()
    path.write_bytes(original_contents[:-200])
    assert run_convert(raw, tmp_path / "out", "--missing-alignments", "query") == 3
    path.write_bytes(original_contents)
    assert run_convert(raw, tmp_path / "out", "--missing-alignments", "query") == 0
    assert rejected(tmp_path / "out") == {}
    assert len(ShardIndex.load(tmp_path / "out").chains) == 3


def test_all_entries_are_rejected(raw, tmp_path, capsys):
    for path in (raw / "pdb_mmcif" / "raw").rglob("*.cif.gz"):
        path.write_bytes(path.read_bytes()[:50])
    assert run_convert(raw, tmp_path / "out") == 1
    assert "all 2 entries were rejected" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'out' / 'rejected.csv'} lists the reasons; fix the input" in error
    assert "resume" not in error


def test_all_entries_and_chains_are_rejected(raw, tmp_path, capsys):
    (raw / "pdb_mmcif" / "raw" / "ab" / "1abc.cif.gz").write_bytes(b"")
    raw_data.write_alignment(raw, "2abc_A", "mgnify_hits.a3m", ">q\nMKV\n")
    assert run_convert(raw, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "1 entries and all chains of the others were rejected; the first: 1abc: " in error
    assert main(["inspect", str(tmp_path / "out"), "2abc_A"]) == 1
    assert "rejected.csv lists the reasons; fix the input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "uniref90_hits.a3m",
            f">q\n{raw_data.SEQUENCE_1ABC}\n>s\nMKTAY\n",
            "uniref90_hits.a3m:3: row 2 has 5 aligned columns, expected 22",
        ),
        (
            "uniref90_hits.a3m",
            f">q\n{raw_data.SEQUENCE_2ABC}\n",
            "its query has 28 residues, but chain 1abc_A has 22",
        ),
        (
            "uniref90_hits.a3m",
            f">q\n{'WW' + raw_data.SEQUENCE_1ABC[2:]}\n",
            "in 2 of 22 letters, at most 5 % may differ; the first: it has W at residue 1, the ",
        ),
        (
            "uniref90_hits.a3m",
            f">q\n{raw_data.SEQUENCE_1ABC}\n>s\n{'*' + raw_data.SEQUENCE_1ABC[1:]}\n",
            "uniref90_hits.a3m:3: row 2 has '*'",
        ),
        (
            "mgnify_hits.sto",
            "# STOCKHOLM 1.0\nq MKTAY\ns MKT\n//\n",
            "mgnify_hits.sto:3: row 2 has 3 columns, expected 5",
        ),
        ("pdb70_hits.hhr", None, "cut short"),
    ],
)
def test_bad_alignment_file_is_named_and_other_chains_are_converted(
    raw, tmp_path, name, text, message, capsys
):
    if text is None:
        complete = (raw / "open_protein_set/pdb/1abc_A/hhr/pdb70_hits.hhr").read_text()
        text = complete[: len(complete) * 2 // 3]
    path = raw / "open_protein_set/pdb/1abc_A" / ("hhr" if name.endswith("hhr") else "a3m") / name
    original = path.read_text() if path.exists() else None
    path.write_text(text)
    assert run_convert(raw, tmp_path / "rejecting") == 3
    assert list(rejected(tmp_path / "rejecting")) == ["1abc_A"]
    reason = rejected(tmp_path / "rejecting")["1abc_A"]
    assert (
        str(path) in reason
        and message in reason
        and "rejected chains: 1" in capsys.readouterr().out
    )
    assert [chain.chain_id for chain in ShardIndex.load(tmp_path / "rejecting").chains] == [
        "2abc_A"
    ]
    out = tmp_path / "out"
    assert run_convert(raw, out, "--strict") == 1
    error = capsys.readouterr().err
    assert str(path) in error and message in error and "run the same command again" in error
    with pytest.raises(ShardError, match="not finished"):
        ShardIndex.load(out)
    assert_nothing_half_written(out)
    finished = (out / "structures-00000.h5").stat().st_mtime_ns
    if original is None:
        path.unlink()
    else:
        path.write_text(original)
    assert run_convert(raw, out, "--strict") == 0
    assert (out / "structures-00000.h5").stat().st_mtime_ns == finished
    assert len(ShardIndex.load(out).chains) == 2


def test_a_rejected_chain_is_not_used_as_a_template(raw, tmp_path, capsys):
    alignment = raw / "open_protein_set/pdb/2abc_A/a3m/mgnify_hits.a3m"
    original_contents = alignment.read_text()
    alignment.write_text(">q\nMKT\n")
    assert run_convert(raw, tmp_path / "out") == 3
    reader = ShardReader(tmp_path / "out")
    assert reader.template_hits("1abc_A") == () and reader.entry("1abc_A").num_template_hits == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "out"), "2abc_A"]) == 1
    assert (
        "chain 2abc_A was rejected: " in (error := capsys.readouterr().err)
        and "its query has 3 residues" in error
    )
    alignment.write_text(original_contents)
    assert run_convert(raw, tmp_path / "out") == 0
    assert [hit.name for hit in ShardReader(tmp_path / "out").template_hits("1abc_A")] == ["2abc_A"]


def test_missing_alignment(raw, tmp_path, capsys):
    raw_data.write_entry(raw, "3abc", raw_data.cif_text("3abc", "MKTAYIAKQR"))
    assert run_convert(raw, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "3abc_A" in error and "--missing-alignments query" in error
    assert run_convert(raw, tmp_path / "out", "--missing-alignments", "query") == 0
    reader = ShardReader(tmp_path / "out")
    assert not reader.entry("3abc_A").has_alignment
    alignment = reader.alignment("3abc_A")
    assert alignment.msa.shape == (1, 10) and alignment.dense_deletions().sum() == 0
    assert reader.template_hits("3abc_A") == ()


@pytest.mark.parametrize(
    "name", ["uniref90_hits.A3M", "uniref90_hits.a3m.bz2", "uniref90_hits.txt"]
)
def test_folder_without_a_readable_alignment(raw, tmp_path, capsys, name):
    raw_data.write_entry(raw, "3abc", raw_data.cif_text("3abc", "MKTAYIAKQR"))
    folder = raw / "open_protein_set" / "pdb" / "3abc_A"
    folder.mkdir()
    (folder / name).write_text(">query\nMKTAYIAKQR\n")
    assert run_convert(raw, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "no alignment among the files of their folders: 3abc_A; give the files in" in error
    assert run_convert(raw, tmp_path / "out", "--missing-alignments", "query") == 0
    assert ShardReader(tmp_path / "out").alignment("3abc_A").msa.shape == (1, 10)


@pytest.mark.parametrize(
    "missing",
    [
        "pdb_mmcif/raw",
        "pdb_mmcif/obsolete.dat",
        "open_protein_set/pdb",
        "open_protein_set/duplicate_pdb_chains.txt",
    ],
)
def test_missing_raw_files(raw, tmp_path, missing, capsys):
    (raw / missing).rename(raw / "elsewhere")
    assert run_convert(raw, tmp_path / "out") == 1
    assert f"{raw / missing} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("num_files_that_fit", "num_shards"), [(0, 0), (2, 1), (3, 2), (5, 2)])
def test_full_disk(raw, tmp_path, monkeypatch, capsys, num_files_that_fit, num_shards):
    """If a shard or the index cannot be written, finished shards stay and no partial file remains.

    The same command later finishes the conversion.
    """
    written = []

    def fsync(_):
        written.append(1)
        if len(written) > num_files_that_fit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        assert run_convert(raw, out, "--shard-size-mib", "1") == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and str(out) in error
    assert_nothing_half_written(out)
    assert len(list(out.glob("*.h5"))) == num_shards and not (out / "index.h5").exists()
    assert run_convert(raw, out, "--shard-size-mib", "1") == 0
    assert run_convert(raw, tmp_path / "uninterrupted", "--shard-size-mib", "1") == 0
    assert contents(out) == contents(tmp_path / "uninterrupted")


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_disk_error_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "shard.h5").write_bytes(b"old")
    (tmp_path / "scratch").mkdir()
    os.symlink("/dev/full", tmp_path / "scratch" / "shard.h5.tmp")
    with pytest.raises(OSError, match="No space left"):
        shard_format.write_atomically(
            tmp_path / "shard.h5", b"x" * 100_000, scratch_dir=tmp_path / "scratch"
        )
    assert (tmp_path / "shard.h5").read_bytes() == b"old"
    assert not list((tmp_path / "scratch").iterdir())


def test_flipped_byte(raw, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_convert(raw, out) == 0
    assert main(["verify", str(out)]) == 0
    before = contents(out)
    shard = out / "structures-00000.h5"
    damaged = bytearray(shard.read_bytes())
    damaged[-5] ^= 1
    shard.write_bytes(damaged)
    capsys.readouterr()
    assert main(["verify", str(out)]) == 1
    error = capsys.readouterr().err
    assert "structures-00000.h5 has sha256" in error and "Remove these files" in error
    assert not (out / "verified.json").exists()
    shard.unlink()
    assert run_convert(raw, out) == 0
    assert main(["verify", str(out)]) == 0
    assert contents(out) == before


def test_truncated_and_missing_shard(raw, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_convert(raw, out) == 0
    shard = out / "structures-00000.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ShardError, match="expected"):
        ShardReader(out).structure("1abc_A")
    assert main(["verify", str(out)]) == 1
    shard.unlink()
    with pytest.raises(ShardError, match="does not exist"):
        ShardReader(out).structure("1abc_A")
    capsys.readouterr()
    assert main(["verify", str(out)]) == 1
    assert "is missing" in capsys.readouterr().err


def test_damaged_index(raw, tmp_path):
    assert run_convert(raw, tmp_path / "out") == 0
    path = tmp_path / "out" / "index.h5"
    with h5py.File(path, "r+") as file:
        file["sequence_length"][0] += 1
    with pytest.raises(ShardError, match="damaged"):
        ShardIndex.load(tmp_path / "out")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ShardError, match="cannot be read"):
        ShardIndex.load(tmp_path / "out")


def test_index_of_another_version(raw, tmp_path, capsys):
    assert run_convert(raw, tmp_path / "out") == 0
    with h5py.File(tmp_path / "out" / "index.h5", "r+") as file:
        file.attrs["format_version"] = 99
    assert main(["inspect", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert (
        "version 99" in error
        and f"version {shard_format.FORMAT_VERSION}" in error
        and "convert the raw data again" in error
    )


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_missing_or_empty_directory(tmp_path, command, capsys):
    assert main([command, str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([command, str(tmp_path / "empty")]) == 1
    assert "is empty" in capsys.readouterr().err


def test_unknown_chain(raw, tmp_path, capsys):
    assert run_convert(raw, tmp_path / "out") == 0
    assert main(["inspect", str(tmp_path / "out"), "9xyz_A"]) == 1
    assert "9xyz_A is not in" in capsys.readouterr().err
