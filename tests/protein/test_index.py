"""The index file: round trip, checksum and errors."""

from __future__ import annotations

import dataclasses

import pytest

from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardFile, ShardIndex, encode_index
from openfold_opt.protein.records import ChainEntry
from openfold_opt.protein.shard_format import ShardError

ENTRY = ChainEntry(
    chain_id="1abc_Bj",
    mmcif_chain_ids=("A", "C"),
    release_date="2001-02-03",
    resolution=2.1,
    method="X-RAY DIFFRACTION;NEUTRON DIFFRACTION",
    cluster_id=17,
    sequence_length=120,
    commonest_letter_count=13,
    alignment_id="1abc_A",
    num_alignments=5,
    num_template_hits=2,
    structure_shard=0,
    structure_row=3,
    alignment_shard=1,
    alignment_row=0,
    hit_set=0,
)
ATTRIBUTES = {"missing_alignments": "query", "num_entries": 9, "num_rejected_entries": 1}
SHARDS = [ShardFile(name="structures-00000.h5", sha256="0" * 64, size_bytes=1 << 40)]


def write(data_dir, chains, shards=SHARDS):
    data_dir.mkdir(exist_ok=True)
    image = encode_index(chains, shards, attributes=ATTRIBUTES)
    shard_format.write_atomically(data_dir / shard_format.INDEX_FILE_NAME, image)
    return ShardIndex.load(data_dir)


def test_index_round_trip(tmp_path):
    without_alignment = dataclasses.replace(
        ENTRY,
        chain_id="2xyz_A",
        resolution=None,
        alignment_id=None,
        alignment_shard=-1,
        cluster_id=-1,
    )
    index = write(tmp_path / "data", [ENTRY, without_alignment])
    assert index.chains == (ENTRY, without_alignment)
    assert index.by_id["2xyz_A"] is index.chains[1]
    assert index.shards == tuple(SHARDS)
    assert (index.missing_alignments, index.num_entries, index.num_rejected_entries) == (
        "query",
        9,
        1,
    )
    assert (
        ENTRY.pdb_id,
        ENTRY.author_chain_id,
        ENTRY.has_alignment,
        without_alignment.has_alignment,
    ) == (
        "1abc",
        "Bj",
        True,
        False,
    )


def test_checksum_depends_on_chains_and_shards(tmp_path):
    first = write(tmp_path / "a", [ENTRY]).checksum
    assert write(tmp_path / "b", [ENTRY]).checksum == first
    assert write(tmp_path / "c", [dataclasses.replace(ENTRY, cluster_id=18)]).checksum != first
    assert (
        write(tmp_path / "d", [ENTRY], [dataclasses.replace(SHARDS[0], sha256="1" * 64)]).checksum
        != first
    )


def test_unfinished_conversion_is_an_error(tmp_path):
    (tmp_path / "data" / shard_format.STATE_DIR_NAME).mkdir(parents=True)
    with pytest.raises(ShardError, match="is not finished"):
        ShardIndex.load(tmp_path / "data")


def test_directory_without_index_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ShardError, match="has no index.h5"):
        ShardIndex.load(tmp_path)
