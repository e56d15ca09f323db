"""Fast clustering equals the reference: random input, word and counter limits, golden input."""

import numba
import numpy as np
import pytest

from openfold_opt.loader.reference import clustering
from openfold_opt.loader.transforms import fast_clustering
from openfold_opt.protein.residue_constants import hhblits_to_model_order

IDENTITY = np.arange(22, dtype=np.uint8)
HHBLITS = np.asarray(hhblits_to_model_order, dtype=np.uint8)


def reference_assignment(msa, centers, class_of_token):
    classes = class_of_token[msa]
    return np.stack([clustering.assign_to_clusters(classes, clusters) for clusters in centers])


@pytest.mark.parametrize(
    ("num_passes", "num_clusters", "num_res", "num_rows"),
    [
        (1, 1, 1, 1),
        (4, 7, 13, 500),
        (4, 63, 8, 300),
        (2, 64, 9, 300),
        (3, 65, 7, 300),
        (4, 124, 101, 400),
        (1, 130, 300, 200),
        (1, 3, 1100, 9),
    ],
)
@pytest.mark.parametrize("class_of_token", [IDENTITY, HHBLITS], ids=["classes", "tokens"])
def test_random_assignment_equals_the_reference(
    num_passes, num_clusters, num_res, num_rows, class_of_token
):
    rng = np.random.default_rng(num_clusters)
    msa = rng.integers(0, 22, (num_rows, num_res), dtype=np.uint8)
    centers = rng.integers(0, 23, (num_passes, num_clusters, num_res), dtype=np.uint8)
    found = fast_clustering.assign_rows(msa, centers, class_of_token)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, reference_assignment(msa, centers, class_of_token))


@pytest.mark.parametrize("num_res", [1, 7, 8, 15, 16, 255, 256, 257, 1024])
def test_complete_agreement_is_counted_without_overflow(num_res):
    """The first 66 centers differ from the rows in one column; counts reach the chain length."""
    msa = np.full((3, num_res), 5, np.uint8)
    centers = np.full((1, 70, num_res), 5, np.uint8)
    centers[:, :66, -1] = 21
    assert fast_clustering.assign_rows(msa, centers, IDENTITY).tolist() == [[66] * 3]


def test_gaps_and_masks_do_not_agree_and_ties_go_to_the_first_center():
    centers = np.array([[[21, 21, 21, 22], [0, 21, 21, 22], [0, 21, 21, 21]]], np.uint8)
    msa = np.array([[0, 21, 21, 21], [1, 21, 21, 21]], np.uint8)
    assert fast_clustering.assign_rows(msa, centers, IDENTITY).tolist() == [[1, 0]]


def test_ties_in_a_later_word_go_to_the_first_center():
    centers = np.full((1, 128, 3), 21, np.uint8)
    centers[0, [70, 71, 127]] = 4
    assert fast_clustering.assign_rows(
        np.full((1, 3), 4, np.uint8), centers, IDENTITY
    ).tolist() == [[70]]


def test_read_only_and_strided_input_is_accepted():
    msa = np.random.default_rng(0).integers(0, 22, (40, 30), dtype=np.uint8)
    centers = np.random.default_rng(1).integers(0, 22, (2, 5, 15), dtype=np.uint8)
    msa.setflags(write=False)
    found = fast_clustering.assign_rows(msa[:, ::2], centers, IDENTITY)
    np.testing.assert_array_equal(found, reference_assignment(msa[:, ::2], centers, IDENTITY))


def dense_counts(flags, counts):
    """Convert the result of count_members to int [N_clust, columns, 23]."""
    bits = np.unpackbits(flags, axis=-1, bitorder="little")[..., :23].astype(bool)
    dense = np.zeros(bits.shape, np.int64)
    dense[bits] = counts
    return dense


@pytest.mark.parametrize("num_members", [0, 1, 800])
@pytest.mark.parametrize("class_of_token", [IDENTITY, HHBLITS], ids=["classes", "tokens"])
@pytest.mark.parametrize("crop", [slice(0, 17), slice(4, 11)])
def test_random_counts_equal_brute_force(num_members, class_of_token, crop):
    rng = np.random.default_rng(num_members)
    num_clusters = 9
    msa = rng.integers(0, 22, (num_clusters + num_members, 17), dtype=np.uint8)
    centers = rng.permutation(len(msa))[:num_clusters]
    assignment = rng.integers(0, num_clusters - 1, len(msa))
    assignment[centers] = -1
    flags, counts = fast_clustering.count_members(
        msa, assignment, num_clusters=num_clusters, crop=crop, class_of_token=class_of_token
    )
    assert flags.shape == (num_clusters, crop.stop - crop.start, 3)
    expected = np.zeros((num_clusters, crop.stop - crop.start, 23), np.int64)
    for row, cluster in zip(class_of_token[msa[:, crop]], assignment):
        if cluster >= 0:
            expected[cluster, np.arange(len(row)), row] += 1
    np.testing.assert_array_equal(dense_counts(flags, counts), expected)
    assert (counts > 0).all()


def test_large_clusters_do_not_overflow():
    msa = np.full((70_001, 2), 3, np.uint8)
    assignment = np.zeros(len(msa), np.int64)
    assignment[0] = -1
    flags, counts = fast_clustering.count_members(
        msa, assignment, num_clusters=1, crop=slice(0, 2), class_of_token=IDENTITY
    )
    assert counts.tolist() == [70_000, 70_000]
    assert flags.tolist() == [[[8, 0, 0], [8, 0, 0]]]


def test_assignment_and_profile_of_all_rows_equal_golden_values(golden_transforms):
    golden = golden_transforms.features["2hhb_A"]
    msa, masked = golden["msa"].astype(np.uint8), golden["cluster/in_masked_msa"].astype(np.uint8)
    assignment = fast_clustering.assign_rows(msa, masked[None], IDENTITY)[0]
    np.testing.assert_array_equal(
        assignment[golden["cluster/in_rows_extra"]], golden["cluster/extra_cluster_assignment"]
    )
    assignment[golden["cluster/in_rows_clustered"]] = -1
    crop = slice(0, msa.shape[1])
    parts = fast_clustering.count_members(
        msa, assignment, num_clusters=len(masked), crop=crop, class_of_token=IDENTITY
    )
    counts = dense_counts(*parts) + np.eye(23, dtype=np.int64)[masked]
    sizes = np.bincount(assignment[assignment >= 0], minlength=len(masked)) + 1
    np.testing.assert_allclose(
        counts / sizes[:, None, None], golden["cluster/cluster_profile"], atol=1e-6
    )


def total(values):
    result = 0
    for value in values:
        result += value
    return result


TOTAL_SIGNATURE = numba.int64(numba.types.Array(numba.uint8, 1, "C", readonly=True))


def test_functions_are_compiled_immediately_and_accept_read_only_input():
    function = fast_clustering.compiled(TOTAL_SIGNATURE)(total)
    assert function.signatures, "compiled before the first call"
    values = np.array([200, 100], np.uint8)
    values.setflags(write=False)
    assert function(values) == 300


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot cache function: no locator available"),
        OSError("no space left on device"),
    ],
)
def test_functions_are_compiled_without_a_cache_folder(monkeypatch, error):
    njit, cache_arguments = numba.njit, []

    def refuse_cache(signature, cache=False):
        cache_arguments.append(cache)
        if cache:
            raise error
        return njit(signature)

    monkeypatch.setattr(fast_clustering.numba, "njit", refuse_cache)
    assert fast_clustering.compiled(TOTAL_SIGNATURE)(total)(np.ones(3, np.uint8)) == 3
    assert cache_arguments == [True, False]
