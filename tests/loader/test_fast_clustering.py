"""The compiled clustering against the plain one."""

import numpy as np
import pytest

from openfold_opt.loader.raw_reading import CLASS_OF_TOKEN
from openfold_opt.loader.transforms import clustering, fast_clustering
from openfold_opt.protein.reader import ShardReader

IDENTITY = np.arange(22, dtype=np.uint8)


def draw(*, num_rows, num_res, num_clusters, num_passes, seed, classes=22):
    rng = np.random.default_rng(seed)
    msa = rng.integers(0, classes, (num_rows, num_res), dtype=np.uint8)
    centres = rng.integers(0, min(classes + 1, 23), (num_passes, num_clusters, num_res), dtype=np.uint8)
    return msa, centres


@pytest.mark.parametrize("class_of_token", [IDENTITY, CLASS_OF_TOKEN], ids=["classes", "tokens"])
@pytest.mark.parametrize("num_res", [1, 7, 8, 9, 64, 300])
@pytest.mark.parametrize("num_clusters", [1, 2, 63, 64, 65, 124, 200])
def test_assignment_is_the_plain_one(num_res, num_clusters, class_of_token):
    # few classes make many ties
    for classes in (3, 22):
        msa, centres = draw(num_rows=50, num_res=num_res, num_clusters=num_clusters, num_passes=3, seed=num_res, classes=classes)
        found = fast_clustering.assign_rows(msa, centres, class_of_token)
        for number in range(3):
            expected = clustering.assign_to_clusters(class_of_token[msa], centres[number])
            np.testing.assert_array_equal(found[number], expected)


def test_all_columns_agree():
    msa = np.zeros((3, 255), np.uint8)
    found = fast_clustering.assign_rows(msa, np.zeros((1, 2, 255), np.uint8), IDENTITY)
    assert found.tolist() == [[0, 0, 0]]


def test_golden_assignment(golden_transforms):
    golden = golden_transforms.features["2hhb_A"]
    masked = golden["cluster/in_masked_msa"].astype(np.uint8)
    found = fast_clustering.assign_rows(golden["msa"].astype(np.uint8), masked[None], IDENTITY)[0]
    np.testing.assert_array_equal(found[golden["cluster/in_rows_extra"]], golden["cluster/extra_cluster_assignment"])


@pytest.mark.parametrize("crop", [slice(0, 20), slice(3, 11), slice(19, 20)])
def test_counts_are_those_of_the_profile(crop):
    rng = np.random.default_rng(2)
    msa = rng.integers(0, 22, (400, 20), dtype=np.uint8)
    assignment = rng.integers(-1, 5, 400)
    flags, counts = fast_clustering.count_members(msa, assignment, num_clusters=5, crop=crop, class_of_token=CLASS_OF_TOKEN)
    dense = np.zeros((5, crop.stop - crop.start, 23), np.int64)
    dense[np.unpackbits(flags, axis=-1, bitorder="little")[..., :23].astype(bool)] = counts
    for cluster in range(5):
        members = CLASS_OF_TOKEN[msa[assignment == cluster, crop]]
        for column in range(members.shape[1]):
            np.testing.assert_array_equal(dense[cluster, column], np.bincount(members[:, column], minlength=23))


def test_a_deep_alignment(real_dir):
    alignment = ShardReader(real_dir).alignment("3en2_A")
    rows = np.random.default_rng(1).permutation(len(alignment.msa))[:124]
    centres = CLASS_OF_TOKEN[alignment.msa[rows]]
    centres[np.random.default_rng(2).random(centres.shape) < 0.15] = 22
    found = fast_clustering.assign_rows(alignment.msa, centres[None], CLASS_OF_TOKEN)[0]
    np.testing.assert_array_equal(found, clustering.assign_to_clusters(CLASS_OF_TOKEN[alignment.msa], centres))
