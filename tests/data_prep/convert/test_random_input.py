"""Random combinations of misplaced, misnamed, unreadable and truncated input files.

Each chain of the data set must be correct, or reported in a listing or in the error. Nothing else
may be reported. One case in ten has no fault. OPENFOLD_RANDOM_CASES sets the number of cases (200
by default).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.convert.listings import read_listing
from data_prep.parsers import file_access
from openfold_opt.protein import replace_file
from openfold_opt.protein.reader import ShardReader
from tests.support import raw_data
from tests.support.fault_injection import FAULTS, Fault, Tree

NUM_CASES = int(os.environ.get("OPENFOLD_RANDOM_CASES", "200"))
NUM_BATCHES = 20
SEQUENCES = {
    "1abc": raw_data.SEQUENCE_1ABC,
    "2abc": raw_data.SEQUENCE_2ABC,
    "3xyz": "MKTAYIAKQRQLSFVKSHFSRQDDLGGG",
    "4xyz": "GSHMKTAYIAKQRQISFVKAAFSRQ",
    "5xyz": "MSTAYIAKWRQISFVKSHFSRQ",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """The contents of a chain in a data set without faults."""

    sequence: str
    positions: bytes
    rows: bytes
    hits: tuple[str, ...]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[Path, dict[str, Expected]]:
    root = tmp_path_factory.mktemp("clean")
    write_raw_data(root / "raw")
    assert main(raw_data.convert_arguments(root / "raw", root / "out")) == 0
    reader = ShardReader(root / "out")
    chains = {chain.chain_id: read_chain(reader, chain.chain_id) for chain in reader.index.chains}
    assert len(chains) == len(SEQUENCES) and chains["1abc_A"].hits == ("2abc_A", "3xyz_A")
    return root / "raw", chains


def write_raw_data(root: Path) -> None:
    raw_data.write_raw_data(root)
    for pdb_id, sequence in SEQUENCES.items():
        if pdb_id not in ("1abc", "2abc"):
            raw_data.write_entry(root, pdb_id, raw_data.cif_text(pdb_id, sequence))
        for number, name in enumerate(("uniref90_hits.a3m", "mgnify_hits.a3m")):
            row = sequence[:3] + "aa" + "WY"[number] * 4 + sequence[7:]
            raw_data.write_alignment(root, f"{pdb_id}_A", name, f">q\n{sequence}\n>s\n{row}\n")
    query = SEQUENCES["1abc"][:20]
    hits = [
        ("2ABC_A", query, SEQUENCES["2abc"][3:23], 19.5),
        ("3XYZ_A", query, SEQUENCES["3xyz"][:20], 9.5),
    ]
    hhr = raw_data.hhr_text(SEQUENCES["1abc"], hits)
    raw_data.write_alignment(root, "1abc_A", "pdb70_hits.hhr", hhr)
    clusters = " ".join(f"{pdb_id.upper()}_1" for pdb_id in SEQUENCES)
    (root / "pdb_mmcif" / "clusters-by-entity-40.txt").write_text(f"9XYZ_1\n{clusters}\n")


def read_chain(reader: ShardReader, chain_id: str) -> Expected:
    structure, alignment = reader.structure(chain_id), reader.alignment(chain_id)
    rows = np.asarray(alignment.msa).tobytes() + alignment.dense_deletions().tobytes()
    hits = tuple(hit.name for hit in reader.template_hits(chain_id))
    positions = structure.all_atom_positions.tobytes()
    return Expected(sequence=structure.sequence, positions=positions, rows=rows, hits=hits)


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_each_chain_is_correct_or_reported(batch, clean, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(replace_file.os, "fsync", lambda _: None)
    raw, expected = clean
    for seed in range(batch, NUM_CASES, NUM_BATCHES):
        root = tmp_path / str(seed)
        shutil.copytree(raw, root, symlinks=True)
        faults = add_faults(random.Random(seed), root)
        with monkeypatch.context() as patch:
            deny(patch, {path: number for fault in faults for path, number in fault.denied.items()})
            code = main(
                raw_data.convert_arguments(root, root / "out", "--missing-alignments", "query")
            )
        error = capsys.readouterr().err
        note = f"seed {seed}: {[fault.name for fault in faults]}: exit code {code}: {error}"
        stopping = [fault for fault in faults if fault.stops]
        if stopping:
            assert code == 1 and any(fault.expected_text in error for fault in stopping), note
        else:
            assert code == (3 if any(fault.is_faulty for fault in faults) else 0), note
            check_chains(root / "out", faults, expected, note)
            check_listings(root / "out", faults, note)
        shutil.rmtree(root)


def add_faults(draw: random.Random, root: Path) -> list[Fault]:
    """Add up to three faults to different entries. Every tenth case has none."""
    if draw.random() < 0.1:
        return []
    targets = draw.sample(sorted(SEQUENCES), draw.choice([1, 1, 2, 3]))
    return [draw.choice(FAULTS)(Tree(root=root, pdb_id=pdb_id, draw=draw)) for pdb_id in targets]


def deny(patch: pytest.MonkeyPatch, denied: dict[Path, int]) -> None:
    """Simulate that the system refuses to open or list paths, since root may read all files."""

    def refusing(function: Callable) -> Callable:
        def call(path):
            if path in denied:
                raise OSError(denied[path], os.strerror(denied[path]), str(path))
            return function(path)

        return call

    patch.setattr(file_access, "_open", refusing(file_access._open))
    patch.setattr(file_access, "_scandir", refusing(file_access._scandir))


def check_chains(out: Path, faults: list[Fault], expected: dict[str, Expected], note: str) -> None:
    reader = ShardReader(out)
    reported = {f"{fault.pdb_id}_A" for fault in faults if fault.expected_text}
    for chain_id, reference in expected.items():
        if chain_id in reported:
            continue
        assert chain_id in reader.index.by_id, note
        reference_hits = tuple(name for name in reference.hits if name in reader.index.by_id)
        assert read_chain(reader, chain_id) == dataclasses.replace(
            reference, hits=reference_hits
        ), (
            chain_id,
            note,
        )


def check_listings(out: Path, faults: list[Fault], note: str) -> None:
    rows = [
        " ".join(row.values())
        for name in ("rejected.csv", "unused.csv", "query_differences.csv")
        for row in read_listing(out / name)
    ]
    for fault in faults:
        assert fault.expected_text is None or any(fault.expected_text in row for row in rows), (
            fault.expected_text,
            rows,
            note,
        )
    known = [
        text
        for fault in faults
        if fault.expected_text
        for text in (fault.expected_text, f"{fault.pdb_id}_A")
    ]
    false_alarms = [row for row in rows if not any(text in row for text in known)]
    assert not false_alarms, note


def test_a_stale_handle_and_an_io_error_stop_the_conversion(clean, tmp_path, monkeypatch, capsys):
    raw, _ = clean
    for number, inner in (
        (errno.ESTALE, "open_protein_set/pdb"),
        (errno.EIO, "pdb_mmcif/raw/ab/1abc.cif.gz"),
    ):
        with monkeypatch.context() as patch:
            deny(patch, {raw / inner: number})
            assert main(raw_data.convert_arguments(raw, tmp_path / str(number))) == 1
        assert f"cannot read {raw / inner}: {os.strerror(number)}" in capsys.readouterr().err
        assert not (tmp_path / str(number) / "index.h5").exists()
