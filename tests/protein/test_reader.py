"""Reading records from shards in this process and in worker processes."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from openfold_opt.protein import reader as reader_module
from openfold_opt.protein.hhblits_alphabet import sequence_to_tokens
from openfold_opt.protein.reader import ShardReader, single_row_alignment
from openfold_opt.protein.shard_format import ShardError


@pytest.fixture
def reader(small_data_dir):
    return ShardReader(small_data_dir)


def test_structure_record(reader):
    structure = reader.structure("2abc_A")
    assert structure.sequence == "GSHMKTAYIAKQRQLSFVKSHFSRQDDL" == reader.sequence("2abc_A")
    assert (
        structure.residue_index.tolist() == list(range(28))
        and structure.residue_index.dtype == np.int32
    )
    assert (
        structure.all_atom_positions.shape == (28, 37, 3)
        and structure.all_atom_positions.dtype == np.float32
    )
    assert structure.all_atom_mask.dtype == bool and structure.all_atom_mask.sum() == 4 * 28
    assert structure.all_atom_positions[2, 1].tolist() == pytest.approx([3.8 * 3 + 1, 1.125, 1.0])
    assert not structure.all_atom_positions[~structure.all_atom_mask].any()
    assert (structure.resolution, structure.release_date, structure.method) == (
        2.1,
        "2000-01-01",
        "X-RAY DIFFRACTION",
    )


def test_alignment_record(reader):
    alignment = reader.alignment("1abc_A")
    assert alignment.msa.shape == (2, 22) and alignment.msa.dtype == np.uint8
    np.testing.assert_array_equal(alignment.msa[0], sequence_to_tokens(reader.sequence("1abc_A")))
    assert alignment.token_counts.sum() == 44 and alignment.token_counts.shape == (22, 22)
    dense = alignment.dense_deletions()
    assert dense[1, 5] == 2 and dense.sum() == 2
    np.testing.assert_array_equal(alignment.dense_deletions([1, 0, 1]), dense[[1, 0, 1]])
    np.testing.assert_array_equal(alignment.dense_deletions(slice(1, None)), dense[1:])
    assert alignment.dense_deletions([]).shape == (0, 22)


def test_template_hits_exclude_the_own_entry(reader):
    (hit,) = reader.template_hits("1abc_A")
    assert (hit.name, hit.sum_probs, hit.release_date, hit.is_featurizable) == (
        "2abc_A",
        19.5,
        "2000-01-01",
        True,
    )
    assert hit.query_index.tolist() == list(range(20)) and hit.template_index.tolist() == list(
        range(3, 23)
    )
    assert reader.template_hits("2abc_A") == ()


def test_unknown_chain_is_a_key_error(reader):
    with pytest.raises(KeyError, match="9xyz_A"):
        reader.structure("9xyz_A")


def read_both(reader):
    return [
        reader.structure(chain_id).all_atom_positions.sum() + reader.alignment(chain_id).msa.sum()
        for chain_id in ("1abc_A", "2abc_A")
    ]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_works_in_worker_processes(reader, method):
    expected = read_both(reader)
    pickled = pickle.dumps(reader)
    assert len(pickled) < 1000
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_read_pickled, [pickled, pickled]) == [expected, expected]
    assert read_both(pickle.loads(pickled)) == expected


def _read_pickled(pickled):
    return read_both(pickle.loads(pickled))


def test_number_of_open_shards_is_limited(reader, monkeypatch):
    monkeypatch.setattr(reader_module, "_MAX_OPEN_SHARDS", 1)
    expected = read_both(reader)
    assert read_both(reader) == expected and len(reader._open) == 1


def test_single_row_alignment_has_one_row():
    alignment = single_row_alignment("ACXB")
    assert alignment.msa.tolist() == [[0, 1, 20, 2]]
    assert alignment.token_counts[[0, 1, 2, 3], [0, 1, 20, 2]].tolist() == [1, 1, 1, 1]
    assert alignment.dense_deletions().tolist() == [[0, 0, 0, 0]]
    with pytest.raises(ValueError, match="position 2"):
        single_row_alignment("Aa")


def test_truncated_shard_raises_an_error(small_data_dir, tmp_path):
    data_dir = tmp_path / "data"
    shutil.copytree(small_data_dir, data_dir)
    reader = ShardReader(data_dir)
    # Open both shards.
    reader.structure("1abc_A")
    reader.alignment("1abc_A")
    for shard in data_dir.glob("*-*.h5"):
        os.truncate(shard, 100)
    for read, kind in ((reader.structure, "structures"), (reader.alignment, "alignments")):
        with pytest.raises(ShardError, match=f"{kind}-00000.h5 became shorter while it was in use"):
            read("1abc_A")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["alignments", "structures"])
def test_damage_is_an_error_that_names_the_file(small_data_dir, tmp_path, kind, seed):
    """h5py raises errors of several types. The size of the file does not change."""
    (intact,) = small_data_dir.glob(f"{kind}-*.h5")
    shutil.copytree(small_data_dir, tmp_path / "data")
    path = tmp_path / "data" / intact.name
    generator = np.random.default_rng(seed)
    num_errors = 0
    for _ in range(40):
        contents = bytearray(intact.read_bytes())
        for start in generator.integers(0, len(contents) - 32, size=8):
            contents[start : start + 32] = generator.bytes(32)
        path.write_bytes(contents)
        try:
            reader = ShardReader(tmp_path / "data")
            for chain in reader.index.chains:
                reader.structure(chain.chain_id)
                reader.alignment(chain.chain_id)
                reader.template_hits(chain.chain_id)
        except ShardError as error:
            num_errors += 1
            assert str(path) in str(error)
    assert num_errors > 10


def test_alignments_are_read_only(reader):
    with pytest.raises(ValueError, match="read-only"):
        reader.alignment("1abc_A").msa[0, 0] = 0


def test_error_for_a_locked_shard_does_not_advise_removal(small_data_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    data_dir = tmp_path / "data"
    shutil.copytree(small_data_dir, data_dir)
    reader = ShardReader(data_dir)
    with (data_dir / "structures-00000.h5").open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            reader.structure("1abc_A")
        except ShardError as error:
            assert "is locked by another program" in str(error) and "remove" not in str(error)
        else:
            pytest.skip("this build of HDF5 does not lock files")
    assert reader.structure("1abc_A").sequence
