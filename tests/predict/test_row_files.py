"""Matrices in blocks of rows: any order, archives, values that are too large, full disks."""

import os
import zipfile

import numpy as np
import pytest

from openfold_opt.predict.output_files import is_full_disk
from openfold_opt.predict.row_files import LARGEST, RowFile, write_archive


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


def test_a_matrix_that_is_not_square(tmp_path):
    matrix = np.arange(12.0).reshape(4, 3)
    file = RowFile(tmp_path / "x.npy", num_rows=4, is_square=False)
    write_rows(file, matrix[:2], block=2)
    with pytest.raises(ValueError, match=r"expected each row of a matrix of \(4, 3\) once"):
        file(2, np.zeros((2, 4)))
    file(2, matrix[2:])
    file.close()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), matrix)


def test_repeated_and_missing_rows_are_errors(tmp_path):
    file = RowFile(tmp_path / "x.npy", num_rows=4)
    with pytest.raises(ValueError, match=r"received 0 of 4 rows"):
        file.close()
    file(2, np.zeros((2, 4)))
    for start, shape in ((1, (2, 4)), (3, (2, 4)), (0, (2, 5)), (-1, (1, 4))):
        with pytest.raises(ValueError, match=r"expected each row of a matrix of \(4, 4\) once"):
            file(start, np.zeros(shape))
    with pytest.raises(ValueError, match=r"received 2 of 4 rows"):
        file.close()
    file.discard()
    assert not list(tmp_path.iterdir())


def test_values_beyond_float16_are_limited_and_counted(tmp_path):
    file = RowFile(tmp_path / "x.npy", num_rows=2)
    file(0, np.array([[1e6, -1e6], [LARGEST, 1.0]], np.float32))
    file.close()
    assert file.num_limited == 2
    assert np.load(tmp_path / "x.npy").tolist() == [[LARGEST, -LARGEST], [LARGEST, 1.0]]


def test_an_archive_has_the_matrix_and_is_always_the_same(tmp_path):
    matrix = np.random.default_rng(0).uniform(0, 30, (9, 9)).astype(np.float16)
    np.save(tmp_path / "x.npy", matrix)
    for name in ("a.npz", "b.npz"):
        write_archive(tmp_path / name, "pae", tmp_path / "x.npy")
    with np.load(tmp_path / "a.npz") as archive:
        assert list(archive) == ["pae"] and archive["pae"].dtype == np.float16
        np.testing.assert_array_equal(archive["pae"], matrix)
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    os.symlink("/dev/full", tmp_path / "a.npy.tmp")
    file = RowFile(tmp_path / "a.npy.tmp", num_rows=200)
    with pytest.raises(OSError, match="No space left") as caught:
        write_rows(file, np.zeros((200, 200)), block=20)
    assert is_full_disk(caught.value) and caught.value.filename.endswith("a.npy.tmp")
    file.discard()
    assert not list(tmp_path.iterdir())
