"""The PAE as an image: every value up to 512 residues, means of blocks above, and wrong files."""

import numpy as np
import pytest

from openfold_opt.predict.report.pae_pixels import MAX_PIXELS, read_pae_image


def save(path, matrix):
    np.savez(path, pae=matrix)
    return path


def random_pae(num_residues: int) -> np.ndarray:
    values = np.random.default_rng(0).uniform(0.2, 31.7, (num_residues, num_residues))
    return values.astype(np.float16)


@pytest.mark.parametrize("num_residues", [1, 37, MAX_PIXELS])
def test_every_value_of_a_short_chain(tmp_path, num_residues):
    matrix = random_pae(num_residues)
    image = read_pae_image(save(tmp_path / "x.npz", matrix), num_residues=num_residues)
    assert image.block == 1
    np.testing.assert_array_equal(image.tenths, np.rint(matrix.astype(float) * 10))


def test_a_long_chain_has_means_of_blocks(tmp_path):
    num_residues = MAX_PIXELS + 5  # The last block has one residue.
    matrix = random_pae(num_residues)
    image = read_pae_image(save(tmp_path / "x.npz", matrix), num_residues=num_residues)
    assert image.block == 2 and image.tenths.shape == (259, 259)
    blocks = [slice(2 * k, 2 * k + 2) for k in (0, 100, 258)]
    for row in blocks:
        for column in blocks:
            mean = matrix[row, column].astype(float).mean()
            found = image.tenths[row.start // 2, column.start // 2] / 10
            assert found == pytest.approx(mean, abs=0.0501)


def test_a_compressed_file(tmp_path):
    matrix = random_pae(20)
    np.savez_compressed(tmp_path / "x.npz", pae=matrix)
    image = read_pae_image(tmp_path / "x.npz", num_residues=20)
    np.testing.assert_array_equal(image.tenths, np.rint(matrix.astype(float) * 10))


def test_planes_hold_low_and_high_bytes(tmp_path):
    matrix = random_pae(12)
    image = read_pae_image(save(tmp_path / "x.npz", matrix), num_residues=12)
    low, high = np.frombuffer(image.planes(), np.uint8).reshape(2, 12, 12).astype(int)
    np.testing.assert_array_equal(low + 256 * high, image.tenths)


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (random_pae(5), r"found shape \(5, 5\)"),
        (np.zeros((6, 6), np.int32), "dtype int32"),
        (np.full((6, 6), np.nan, np.float16), "not finite or negative"),
        (np.full((6, 6), -1, np.float16), "not finite or negative"),
    ],
)
def test_another_matrix_is_an_error(tmp_path, matrix, reason):
    path = save(tmp_path / "x.npz", matrix)
    with pytest.raises(ValueError, match=reason):
        read_pae_image(path, num_residues=6)


def test_a_file_that_is_cut_short_is_an_error(tmp_path):
    path = save(tmp_path / "x.npz", random_pae(30))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match="is not the predicted aligned error of 30 residues"):
        read_pae_image(path, num_residues=30)


def test_an_archive_with_another_key_is_an_error(tmp_path):
    np.savez(tmp_path / "x.npz", other=random_pae(4))
    with pytest.raises(ValueError, match=r"pae\.npy"):
        read_pae_image(tmp_path / "x.npz", num_residues=4)
