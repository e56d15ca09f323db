"""Files of a data directory: reproducible bytes, layout, checksums and errors."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from openfold_opt.protein import shard_format
from openfold_opt.protein.shard_format import ShardError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "b": rng.integers(0, 22, 1001, dtype=np.uint8),
        "a": rng.normal(size=(7, 3)).astype(np.float32),
        "empty": np.zeros((0, 5)),
    }


def test_same_contents_give_the_same_bytes(arrays):
    assert shard_format.encode_file(arrays, {"n": 3}) == shard_format.encode_file(
        dict(arrays), {"n": 3}
    )


def test_datasets_are_contiguous_and_aligned(arrays, tmp_path):
    path = tmp_path / "shard.h5"
    sha256 = shard_format.write_atomically(path, shard_format.encode_file(arrays, {}))
    assert sha256 == shard_format.sha256_of_file(path, block_bytes=64)
    with shard_format.open_checked(path) as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file[name][()], array)
            assert file[name].chunks is None and file[name].compression is None
            if array.size:
                assert file[name].id.get_offset() % 64 == 0
    assert [item.name for item in tmp_path.iterdir()] == ["shard.h5"]


def test_strings_of_any_width_are_encoded_and_decoded():
    values = ["", "a", "Zürich", "x" * 50]
    assert shard_format.decode_strings(shard_format.encode_strings(values)) == values
    assert shard_format.decode_strings(shard_format.encode_strings([])) == []


def test_offsets_of_concatenated_arrays():
    np.testing.assert_array_equal(shard_format.offsets([3, 0, 2]), [0, 3, 3, 5])
    np.testing.assert_array_equal(shard_format.offsets([]), [0])


@pytest.mark.parametrize("change", [{"n": 4}, {"n": 3, "m": 1}])
def test_checksum_depends_on_attributes(arrays, change):
    assert shard_format.content_checksum(arrays, {"n": 3}) != shard_format.content_checksum(
        arrays, change
    )


def test_checksum_depends_on_contents_dtypes_and_shapes(arrays):
    original = shard_format.content_checksum(arrays, {})
    for name, other in {
        "b": arrays["b"] + np.uint8(1),
        "a": arrays["a"].reshape(3, 7),
        "empty": np.zeros((0, 4)),
    }.items():
        assert shard_format.content_checksum({**arrays, name: other}, {}) != original


def test_missing_and_foreign_files_are_errors(tmp_path):
    with pytest.raises(ShardError, match="does not exist"):
        shard_format.open_checked(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(ShardError, match="cannot be read as HDF5"):
        shard_format.open_checked(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ShardError, match="has format None, version None; this program reads"):
        shard_format.open_checked(tmp_path / "other.h5")


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert (
        shard_format.sha256_of_file(path)
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
