"""Reference clustering: golden assignments and profiles, and a brute-force comparison."""

import numpy as np
import pytest

from openfold_opt.loader.reference import clustering
from openfold_opt.protein.sparse_deletions import SparseDeletions


def brute_force_assignment(extra, clusters):
    agreement = ((extra[:, None] == clusters[None]) & (clusters[None] < 21)).sum(axis=2)
    return agreement.argmax(axis=1)


@pytest.mark.parametrize("num_extra", [0, 1, 3000])
def test_assignment_equals_brute_force(num_extra):
    rng = np.random.default_rng(num_extra)
    clusters = rng.integers(0, 23, (7, 13), dtype=np.uint8)
    extra = rng.integers(0, 22, (num_extra, 13), dtype=np.uint8)
    assert np.array_equal(
        clustering.assign_to_clusters(extra, clusters), brute_force_assignment(extra, clusters)
    )


def test_gaps_and_masks_do_not_count_as_agreement_and_ties_go_to_the_first_cluster():
    clusters = np.array([[21, 21, 21, 22], [0, 21, 21, 22], [0, 21, 21, 21]], np.uint8)
    extra = np.array([[0, 21, 21, 21], [1, 21, 21, 21]], np.uint8)
    assert clustering.assign_to_clusters(extra, clusters).tolist() == [1, 0]


def test_assignment_and_profile_equal_golden_values(golden_transforms):
    golden = golden_transforms.features["2hhb_A"]
    extra = golden["msa"][golden["cluster/in_rows_extra"]].astype(np.uint8)
    masked = golden["cluster/in_masked_msa"].astype(np.uint8)
    assignment = clustering.assign_to_clusters(extra, masked)
    assert np.array_equal(assignment, golden["cluster/extra_cluster_assignment"])
    profile = clustering.cluster_profile(masked, extra, assignment)
    np.testing.assert_allclose(profile, golden["cluster/cluster_profile"], atol=1e-6)
    deletion_mean = clustering.cluster_deletion_mean(
        SparseDeletions.from_dense(golden["deletion_matrix"]),
        clustered=golden["cluster/in_rows_clustered"],
        extra=golden["cluster/in_rows_extra"],
        assignment=assignment,
        columns=slice(0, masked.shape[1]),
    )
    np.testing.assert_allclose(
        deletion_mean, golden["cluster/cluster_deletion_mean"], rtol=1e-6, atol=1e-6
    )


def test_large_clusters_and_large_deletions_do_not_overflow():
    clusters = np.zeros((1, 2), np.uint8)
    extra = np.full((70_000, 2), 3, np.uint8)
    dense = np.zeros((70_001, 2), np.int32)
    dense[1:, 1] = 700
    assignment = clustering.assign_to_clusters(extra, clusters)
    profile = clustering.cluster_profile(clusters, extra, assignment)
    np.testing.assert_allclose(profile[0, 0, [0, 3]], [1 / 70_001, 70_000 / 70_001], rtol=1e-6)
    mean = clustering.cluster_deletion_mean(
        SparseDeletions.from_dense(dense),
        clustered=np.array([0]),
        extra=np.arange(1, 70_001),
        assignment=assignment,
        columns=slice(1, 2),
    )
    np.testing.assert_allclose(mean, [[700 * 70_000 / 70_001]], rtol=1e-6)


def test_deletion_mean_of_a_crop_equals_the_cropped_deletion_mean():
    rng = np.random.default_rng(3)
    dense = rng.integers(0, 900, (40, 11)) * (rng.random((40, 11)) < 0.2)
    rows = rng.permutation(40)
    arguments = {"clustered": rows[:6], "extra": rows[6:], "assignment": rng.integers(0, 6, 34)}
    deletions = SparseDeletions.from_dense(dense)
    whole = clustering.cluster_deletion_mean(deletions, columns=slice(0, 11), **arguments)
    cropped = clustering.cluster_deletion_mean(deletions, columns=slice(4, 9), **arguments)
    assert whole.any()
    assert np.array_equal(whole[:, 4:9], cropped)
