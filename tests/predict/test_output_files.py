"""Files of one chain: names by rank, copies of the best, temporary names."""

import os

import numpy as np
import pytest

from openfold_opt.predict.file_names import (
    CONFIDENCE,
    DISTOGRAM,
    PAE,
    PICTURE,
    STRUCTURE,
)
from openfold_opt.predict.output_files import ChainFiles, is_full_disk, temporary_patterns


def chain_files(folder, *weights: str) -> ChainFiles:
    """Return files of a chain `a` with structure, PAE and distogram from each set of weights."""
    files = ChainFiles(folder, "a", weights)
    for value, name in enumerate(weights):
        for kind in (PAE, DISTOGRAM):
            files.row_file(name, kind, num_rows=2)(0, np.full((2, 2), value))
        assert files.close_rows(name) == []
        files.write(name, STRUCTURE, ["data_", name, "\n"])
    return files


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_set_of_weights(tmp_path):
    files = chain_files(tmp_path, "w")
    names = files.finish(["w"])
    assert names == [
        {"structure": "a.cif", "pae": "a_pae.npz", "distogram": "a_distogram.npy"},
    ]
    assert names_in(tmp_path) == ["a.cif", "a_distogram.npy", "a_pae.npz"]
    assert (tmp_path / "a.cif").read_text() == "data_w\n" and files.best_structure == "a.cif"
    assert files.sizes == {path.name: path.stat().st_size for path in tmp_path.iterdir()}


def test_several_sets_of_weights_are_ranked(tmp_path):
    files = chain_files(tmp_path, "v", "w")
    for name in ("v", "w"):
        files.path(name, PICTURE).write_bytes(name.encode())
        files.write(name, CONFIDENCE, ["{}"])
    names = files.finish(["w", "v"])
    assert (tmp_path / "a.cif").read_text() == "data_w\n"
    assert (tmp_path / "a.png").read_bytes() == b"w"
    assert [kinds["structure"] for kinds in names] == ["a_rank_1_w.cif", "a_rank_2_v.cif"]
    assert (tmp_path / "a_rank_2_v.cif").read_text() == "data_v\n"
    assert np.load(tmp_path / "a_rank_1_w_pae.npz")["pae"].max() == 1
    assert np.load(tmp_path / "a_rank_2_v_distogram.npy").max() == 0
    assert names_in(tmp_path) == sorted(files.sizes)
    assert set(files.sizes) == {*names[0].values(), *names[1].values(), "a.cif", "a.png"}


def test_a_matrix_can_be_read_before_the_chain_is_finished(tmp_path):
    files = chain_files(tmp_path, "v", "w")
    np.testing.assert_array_equal(files.matrix("w", PAE), np.ones((2, 2)))
    assert ChainFiles(tmp_path, "b", ["w"]).matrix("w", PAE) is None


def test_values_that_were_limited_are_a_warning(tmp_path):
    files = ChainFiles(tmp_path, "a", ["w"])
    files.row_file("w", DISTOGRAM, num_rows=1)(0, np.array([[1e6]]))
    (warning,) = files.close_rows("w")
    assert warning.startswith("1 values of _distogram.npy of w are beyond the range of float16")


def test_discard_removes_temporary_files(tmp_path):
    files = chain_files(tmp_path, "v", "w")
    assert files.sizes == {} and len(names_in(tmp_path)) == 8
    patterns = list(temporary_patterns())
    assert all(any(path.match(x) for x in patterns) for path in tmp_path.iterdir())
    files.discard()
    files.discard()
    assert not names_in(tmp_path)


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    files = ChainFiles(tmp_path, "a", ["w"])
    os.symlink("/dev/full", files.path("w", STRUCTURE))
    with pytest.raises(OSError, match="No space left") as caught:
        files.write("w", STRUCTURE, ["data"] * 10_000)
    assert is_full_disk(caught.value) and caught.value.filename.endswith("a.0.structure.tmp")


def test_a_full_disk_is_found_among_the_causes():
    error = RuntimeError("in the forward")
    error.__cause__ = OSError(28, "No space left on device")
    assert is_full_disk(error) and not is_full_disk(OSError(2, "missing"))
