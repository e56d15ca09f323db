"""`convert-mlperf` gives the same shards as raw files and executes no code of a pickle."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from openfold_opt.protein.index import ShardIndex
from tests.support.processed_data import write_processed

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw") / "raw"
    assert main(["synthesize", "--out", str(out), "--chains", "12"]) == 0
    (out / "pdb_mmcif" / "raw" / "00" / "900z.cif.gz").write_bytes(
        (out / "pdb_mmcif" / "raw" / "00" / "9001.cif.gz").read_bytes()
    )
    return out


@pytest.fixture(scope="module")
def processed(raw, tmp_path_factory):
    return write_processed(raw, tmp_path_factory.mktemp("processed"))


@pytest.fixture
def broken(processed, tmp_path):
    """Return a copy that a test can damage."""
    entries, alignments = tmp_path / "pdb", tmp_path / "alignments"
    shutil.copytree(processed[0], entries)
    shutil.copytree(processed[1], alignments)
    return entries, alignments


def arguments(processed, out, *options):
    return [
        "convert-mlperf",
        "--pdb-mmcif-processed",
        str(processed[0]),
        "--alignments",
        str(processed[1]),
        "--out",
        str(out),
        *options,
    ]


def shards(out):
    return {
        path.name: path.read_bytes()
        for path in sorted(out.glob("*"))
        if path.is_file() and path.name != "rejected.csv"
    }


def refused(processed, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(processed, out)) == 1
    assert not (out / "index.h5").exists()
    return capsys.readouterr().err


def test_shards_equal_those_of_raw_files(raw, processed, tmp_path):
    options = ["--shard-size-mib", "1"]
    raw_arguments = [
        "--pdb-mmcif",
        str(raw / "pdb_mmcif"),
        "--open-protein-set",
        str(raw / "open_protein_set"),
    ]
    assert main(["convert", *raw_arguments, "--out", str(tmp_path / "raw"), *options]) == 0
    assert main(arguments(processed, tmp_path / "processed", *options)) == 0
    # The reasons for rejected entries differ, because they come from another program.
    expected, actual = shards(tmp_path / "raw"), shards(tmp_path / "processed")
    assert list(actual) == list(expected)
    assert actual["alignments-00000.h5"] == expected["alignments-00000.h5"]
    assert "900z" in (tmp_path / "processed" / "rejected.csv").read_text()
    assert main(["verify", str(tmp_path / "processed")]) == 0


def test_all_files_are_equal_without_rejected_entries(tmp_path):
    raw = tmp_path / "raw"
    assert main(["synthesize", "--out", str(raw), "--chains", "8", "--seed", "3"]) == 0
    raw_arguments = [
        "--pdb-mmcif",
        str(raw / "pdb_mmcif"),
        "--open-protein-set",
        str(raw / "open_protein_set"),
    ]
    assert main(["convert", *raw_arguments, "--out", str(tmp_path / "a")]) == 0
    assert main(arguments(write_processed(raw, tmp_path / "processed"), tmp_path / "b")) == 0
    assert shards(tmp_path / "a") == shards(tmp_path / "b")


def test_alignments_path_with_or_without_the_inner_folder(processed, tmp_path):
    assert main(arguments((processed[0], processed[1] / "pdb_alignments"), tmp_path / "out")) == 0


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("location", ["entry", "field", "array"])
def test_a_pickle_with_code_is_refused(broken, tmp_path, capsys, location):
    path = broken[0] / "dicts" / "00"
    entries = pickle.loads(path.read_bytes())
    bad = Malicious(tmp_path / "executed")
    first = next(iter(entries.values()))
    if location == "entry":
        entries["9000"] = bad
    elif location == "field":
        first["resolution"] = bad
    else:
        first["atoms"] = np.zeros(3)
    path.write_bytes(pickle.dumps(entries))
    error = refused(broken, tmp_path, capsys)
    assert str(path) in error and "refused: it asks for" in error
    assert ("mkdir" in error) == (location != "array")
    assert not (tmp_path / "executed").exists()


def change(path, edit):
    entries = pickle.loads(path.read_bytes())
    edit(entries, next(iter(entries.values())))
    path.write_bytes(pickle.dumps(entries))


def set_atoms(name, value):
    def edit(entries, entry):
        entry["atoms"]["A"][name] = value(entry["atoms"]["A"][name])

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda entries, entry: entry.pop("sequences"), "has no 'sequences'"),
        (
            lambda entries, entry: entry.update(resolution="good"),
            "resolution is a str, expected float or NoneType",
        ),
        (lambda entries, entry: entry.update(pdb_id="1abc"), "has the pdb_id '1abc'"),
        (
            lambda entries, entry: entry.update(release_date="2001-13-01"),
            "revision date '2001-13-01' is not a date",
        ),
        (
            lambda entries, entry: entry["sequences"].update(A="MKV"),
            "expected [3, 37, 3] for its sequence",
        ),
        (lambda entries, entry: entry["atoms"].clear(), "has no sequence or no atoms"),
        (lambda entries, entry: entries.pop(entry["pdb_id"]), "has no entry 900"),
        (set_atoms("all_atom_mask", lambda old: (old[0][:-9], old[1])), "has less than the"),
        (set_atoms("all_atom_mask", lambda old: (b"x" + old[0], old[1])), "cannot be decompressed"),
        (
            set_atoms("all_atom_mask", lambda old: (zlib.compress(b"\0" * 10**6), old[1])),
            "has more than the",
        ),
        (
            set_atoms("all_atom_positions", lambda old: old[0]),
            "not a pair of compressed bytes and shape",
        ),
        (
            set_atoms(
                "all_atom_positions",
                lambda old: (zlib.compress(b"\xff" * len(zlib.decompress(old[0]))), old[1]),
            ),
            "all_atom_positions has a number that is not finite",
        ),
    ],
)
def test_inconsistent_entries(broken, tmp_path, capsys, edit, message):
    path = broken[0] / "dicts" / "00"
    change(path, edit)
    error = refused(broken, tmp_path, capsys)
    assert str(path) in error and message in error


def test_dates_are_stored_as_iso_dates(broken, tmp_path):
    """This is the format that `convert` stores."""
    change(broken[0] / "dicts" / "00", lambda entries, entry: entry.update(release_date="2001-2-3"))
    assert main(arguments(broken, tmp_path / "out")) == 0
    chains = ShardIndex.load(tmp_path / "out").chains
    assert "2001-02-03" in {chain.release_date for chain in chains}


def test_truncated_pickle_and_pickle_of_another_type(broken, tmp_path, capsys):
    path = broken[0] / "dicts" / "00"
    path.write_bytes(path.read_bytes()[:500])
    assert "damaged pickle" in refused(broken, tmp_path, capsys)
    path.write_bytes(pickle.dumps([1, 2]))
    assert "holds a list, expected a dict of entries" in refused(broken, tmp_path, capsys)


@pytest.mark.parametrize(
    "name", ["chains.csv", "dicts_preprocessing_logs.csv", "obsolete.dat", "dicts", "dicts/00"]
)
def test_missing_files_of_entries(broken, tmp_path, capsys, name):
    path = broken[0] / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert f"{path}" in (error := refused(broken, tmp_path, capsys)) and "does not exist" in error


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("chains.csv", "pdb_cluster_id", "cluster", "has no column pdb_cluster_id"),
        ("chains.csv", "9001_A", "9001_B", "lacks chain 9001_A"),
        ("dicts_preprocessing_logs.csv", "mmcif_gz_size", "size", "has no column mmcif_gz_size"),
    ],
)
def test_inconsistent_tables(broken, tmp_path, capsys, table, old, new, message):
    path = broken[0] / table
    path.write_text(path.read_text().replace(old, new, 1))
    assert message in refused(broken, tmp_path, capsys)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:-30], "is not JSON"),
        (lambda text: "[]", "holds a list, expected an object of chains"),
        (lambda text: text.replace('"0.db"', '"7.db"'), "is in '7.db', which is not in"),
        (lambda text: text.replace('"0.db"', '"../0.db"'), "which is not in"),
        (lambda text: text.replace('"files"', '"file"', 1), "expected {db, files"),
        (
            lambda text: text.replace('"9000_A"', '"9zzz_A"', 1),
            "1 of 12 chains have no alignment folder: 9000_A",
        ),
    ],
)
def test_inconsistent_alignment_index(broken, tmp_path, capsys, edit, message):
    path = broken[1] / "pdb_alignments" / "super.index"
    path.write_text(edit(path.read_text()))
    assert message in refused(broken, tmp_path, capsys)


def test_a_truncated_database(broken, tmp_path, capsys):
    path = broken[1] / "pdb_alignments" / "0.db"
    path.write_bytes(path.read_bytes()[:-100])
    error = refused(broken, tmp_path, capsys)
    assert str(path) in error and "fetch it again" in error


def test_killed_and_resumed(processed, tmp_path):
    command = [sys.executable, "-m", "data_prep", *arguments(processed, tmp_path / "out")]
    process = subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (tmp_path / "out" / "structures-00000.h5").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert main(arguments(processed, tmp_path / "uninterrupted")) == 0
    assert shards(tmp_path / "out") == shards(tmp_path / "uninterrupted")
