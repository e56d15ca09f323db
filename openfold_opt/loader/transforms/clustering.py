"""Nearest-neighbor clustering of the MSA (AlphaFold2 supplement 1.2.7, steps 4-6)."""

import numpy as np
import torch

from openfold_opt.loader.transforms.deletions import SparseDeletions

NUM_CLASSES = 23
NUM_AGREEING_CLASSES = 21
"""Amino acids and unknown count as agreement; gap (21) and mask (22) do not."""
ROWS_AT_ONCE = 2048


def assign_to_clusters(extra: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The cluster center that each extra row agrees with at the most positions; the first on ties.

    The count is a sum over positions of a row of a table [N_res * 23, N_clust] of zeros and ones, an embedding bag: a
    twenty-third of the work of multiplying one-hot matrices, and exact. Runs over whole chains, not over the crop.

    Args:
        extra: uint8 [num_extra, N_res], classes 0..21.
        clusters: uint8 [N_clust, N_res], classes 0..22 (masked).

    Returns:
        int64 [num_extra], 0 .. N_clust - 1.
    """
    num_clusters, num_res = clusters.shape
    table = torch.zeros(num_res, NUM_CLASSES, num_clusters)
    agreeing = torch.from_numpy(clusters < NUM_AGREEING_CLASSES)
    classes = torch.from_numpy(clusters.astype(np.int64))
    # table[l, class of cluster k at l, k] = 1 where that class counts
    table.scatter_(1, classes.T.unsqueeze(1), agreeing.T.unsqueeze(1).float())
    table = table.view(num_res * NUM_CLASSES, num_clusters)
    first_entry = np.arange(num_res, dtype=np.int32) * NUM_CLASSES
    assignment = np.empty(len(extra), np.int64)
    for start in range(0, len(extra), ROWS_AT_ONCE):
        index = torch.from_numpy(extra[start : start + ROWS_AT_ONCE] + first_entry)
        agreement = torch.nn.functional.embedding_bag(index, table, mode="sum")
        assignment[start : start + ROWS_AT_ONCE] = agreement.numpy().argmax(axis=1)
    return assignment


def cluster_profile(clusters: np.ndarray, extra: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Class frequencies in each cluster and column, the (masked) center included.

    Args:
        clusters: uint8 [N_clust, N_res], classes 0..22.
        extra: uint8 [num_extra, N_res].
        assignment: int64 [num_extra].

    Returns:
        float32 [N_clust, N_res, 23].
    """
    num_clusters, num_res = clusters.shape
    members = np.concatenate([clusters, extra])
    cluster_of_member = np.concatenate([np.arange(num_clusters), assignment])
    bin_index = (cluster_of_member[:, None] * num_res + np.arange(num_res)) * NUM_CLASSES + members
    counts = np.bincount(bin_index.ravel(), minlength=num_clusters * num_res * NUM_CLASSES)
    counts = counts.reshape(num_clusters, num_res, NUM_CLASSES).astype(np.float32)
    return counts / _cluster_sizes(num_clusters, assignment)[:, None, None]


def cluster_deletion_mean(
    deletions: SparseDeletions,
    *,
    clustered: np.ndarray,
    extra: np.ndarray,
    assignment: np.ndarray,
    columns: slice,
) -> np.ndarray:
    """Mean deletion count of each cluster and column, the center included.

    Args:
        deletions: of the whole alignment.
        clustered: int64 [N_clust], the alignment's rows that are centers.
        extra: int64 [num_extra], the other rows.
        assignment: int64 [num_extra].
        columns: the columns wanted.

    Returns:
        float32 [N_clust, stop - start].
    """
    num_clusters, num_columns = len(clustered), columns.stop - columns.start
    place, column, count = deletions.entries_of(np.concatenate([clustered, extra]))
    inside = (column >= columns.start) & (column < columns.stop)
    cluster = np.concatenate([np.arange(num_clusters), assignment])[place[inside]]
    bin_index = cluster * num_columns + column[inside] - columns.start
    total = np.bincount(bin_index, weights=count[inside], minlength=num_clusters * num_columns)
    total = total.reshape(num_clusters, num_columns).astype(np.float32)
    return total / _cluster_sizes(num_clusters, assignment)[:, None]


def _cluster_sizes(num_clusters: int, assignment: np.ndarray) -> np.ndarray:
    """Members of each cluster with its center, float32 [N_clust]; the benchmark adds 1e-6."""
    return (np.bincount(assignment, minlength=num_clusters) + 1 + 1e-6).astype(np.float32)
