"""Files of one chain: rows in order, temporary names, full disks."""

import os

import numpy as np
import pytest

from openfold_opt.predict.output_files import (
    DISTOGRAM,
    PAE,
    ChainFiles,
    RowFile,
    is_full_disk,
)


def write_rows(file: RowFile, matrix: np.ndarray, *, block: int) -> None:
    # The ranks of a group send their rows in any order.
    for start in sorted(range(0, len(matrix), block), key=lambda start: (start // block) % 2):
        file(start, matrix[start : start + block])


@pytest.mark.parametrize("block", [1, 3, 7])
@pytest.mark.parametrize("bins", [(), (5,)])
def test_rows_become_a_float16_matrix(tmp_path, block, bins):
    matrix = np.random.default_rng(0).uniform(0, 30, (7, 7, *bins)).astype(np.float32)
    file = RowFile(tmp_path / "x.npy", num_rows=7)
    write_rows(file, matrix, block=block)
    file.close()
    read = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, matrix.astype(np.float16))


def test_repeated_and_missing_rows_are_errors(tmp_path):
    file = RowFile(tmp_path / "x.npy", num_rows=4)
    with pytest.raises(ValueError, match=r"received 0 of 4 rows"):
        file.close()
    file(2, np.zeros((2, 4)))
    for start, shape in ((1, (2, 4)), (3, (2, 4)), (0, (2, 5)), (-1, (1, 4))):
        with pytest.raises(ValueError, match="expected each row of a matrix of 4 x 4 once"):
            file(start, np.zeros(shape))
    with pytest.raises(ValueError, match=r"received 2 of 4 rows"):
        file.close()
    file.discard()
    assert not list(tmp_path.iterdir())


def test_one_set_of_weights(tmp_path):
    files = ChainFiles(tmp_path, "a", ["w"])
    files.row_file("w", PAE, num_rows=2)(0, np.ones((2, 2)))
    names = files.finish(["w"], {"w": "data_a\n"})
    assert names == [{"structure": "a.cif", "pae": "a_pae.npy"}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cif", "a_pae.npy"]
    assert files.best_structure == "a.cif"


def test_several_sets_of_weights_are_ranked(tmp_path):
    files = ChainFiles(tmp_path, "a", ["v", "w"])
    for value, weights in enumerate(("v", "w")):
        for kind in (PAE, DISTOGRAM):
            files.row_file(weights, kind, num_rows=2)(0, np.full((2, 2), value))
    names = files.finish(["w", "v"], {"v": "data_v\n", "w": "data_w\n"})
    assert (tmp_path / "a.cif").read_text() == "data_w\n"
    assert [kinds["structure"] for kinds in names] == ["a_rank_1_w.cif", "a_rank_2_v.cif"]
    assert (tmp_path / "a_rank_2_v.cif").read_text() == "data_v\n"
    assert np.load(tmp_path / "a_rank_1_w_pae.npy").max() == 1
    assert np.load(tmp_path / "a_rank_2_v_distogram.npy").max() == 0
    assert len(list(tmp_path.iterdir())) == 7


def test_discard_removes_temporary_files(tmp_path):
    files = ChainFiles(tmp_path, "a", ["w"])
    files.row_file("w", PAE, num_rows=4)(0, np.ones((2, 4)))
    assert len(list(tmp_path.iterdir())) == 1
    files.discard()
    files.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    os.symlink("/dev/full", tmp_path / "a.npy.tmp")
    file = RowFile(tmp_path / "a.npy.tmp", num_rows=200)
    with pytest.raises(OSError, match="No space left") as caught:
        write_rows(file, np.zeros((200, 200)), block=20)
    assert is_full_disk(caught.value) and caught.value.filename.endswith("a.npy.tmp")
    file.discard()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_among_the_causes():
    error = RuntimeError("in the forward")
    error.__cause__ = OSError(28, "No space left on device")
    assert is_full_disk(error) and not is_full_disk(OSError(2, "missing"))
