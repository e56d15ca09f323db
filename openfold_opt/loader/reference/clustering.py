"""Nearest-neighbor clustering of the MSA (AlphaFold2 supplement 1.2.7, steps 4-6)."""

import numpy as np
import torch

from openfold_opt.loader.transforms.msa_features import NUM_AGREEING_CLASSES, NUM_MSA_CLASSES
from openfold_opt.protein.sparse_deletions import SparseDeletions

ROWS_PER_CHUNK = 2048


def assign_to_clusters(extra: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the cluster center that agrees with each extra row at the most positions.

    Ties go to the first center. The number of agreements is a sum over the positions of a row of a
    table [N_res * 23, N_clust] of zeros and ones, computed as an embedding bag: exact, and 1/23 of
    the work of multiplying one-hot matrices. Uses whole chains, not the crop.

    Args:
        extra: uint8 [num_extra, N_res], classes 0..21.
        clusters: uint8 [N_clust, N_res], classes 0..22 (masked).

    Returns:
        int64 [num_extra], 0 .. N_clust - 1.
    """
    num_clusters, num_res = clusters.shape
    table = torch.zeros(num_res, NUM_MSA_CLASSES, num_clusters)
    agreeing = torch.from_numpy(clusters < NUM_AGREEING_CLASSES)
    classes = torch.from_numpy(clusters.astype(np.int64))
    # The entry (l, class of cluster k at l, k) is 1 if that class counts as agreement.
    table.scatter_(1, classes.T.unsqueeze(1), agreeing.T.unsqueeze(1).float())
    table = table.view(num_res * NUM_MSA_CLASSES, num_clusters)
    first_entry = np.arange(num_res, dtype=np.int32) * NUM_MSA_CLASSES
    assignment = np.empty(len(extra), np.int64)
    for start in range(0, len(extra), ROWS_PER_CHUNK):
        index = torch.from_numpy(extra[start : start + ROWS_PER_CHUNK] + first_entry)
        agreement = torch.nn.functional.embedding_bag(index, table, mode="sum")
        assignment[start : start + ROWS_PER_CHUNK] = agreement.numpy().argmax(axis=1)
    return assignment


def cluster_profile(clusters: np.ndarray, extra: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Compute the class frequencies of each cluster and column, including the (masked) center.

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
    column_index = cluster_of_member[:, None] * num_res + np.arange(num_res)
    bin_index = column_index * NUM_MSA_CLASSES + members
    counts = np.bincount(bin_index.ravel(), minlength=num_clusters * num_res * NUM_MSA_CLASSES)
    counts = counts.reshape(num_clusters, num_res, NUM_MSA_CLASSES).astype(np.float32)
    return counts / _cluster_sizes(num_clusters, assignment)[:, None, None]


def cluster_deletion_mean(
    deletions: SparseDeletions,
    *,
    clustered: np.ndarray,
    extra: np.ndarray,
    assignment: np.ndarray,
    columns: slice,
) -> np.ndarray:
    """Compute the mean deletion count of each cluster and column, including the center.

    Args:
        deletions: of the whole alignment.
        clustered: int64 [N_clust], the rows of the alignment that are centers.
        extra: int64 [num_extra], the other rows.
        assignment: int64 [num_extra].
        columns: columns to return.

    Returns:
        float32 [N_clust, stop - start].
    """
    num_clusters, num_columns = len(clustered), columns.stop - columns.start
    row_index, column, count = deletions.entries(np.concatenate([clustered, extra]), columns)
    cluster = np.concatenate([np.arange(num_clusters), assignment])[row_index]
    bin_index = cluster * num_columns + column
    total = np.bincount(bin_index, weights=count, minlength=num_clusters * num_columns)
    total = total.reshape(num_clusters, num_columns).astype(np.float32)
    return total / _cluster_sizes(num_clusters, assignment)[:, None]


def _cluster_sizes(num_clusters: int, assignment: np.ndarray) -> np.ndarray:
    """Return the number of members of each cluster, including its center; float32 [N_clust].

    The MLCommons reference adds 1e-6.
    """
    return (np.bincount(assignment, minlength=num_clusters) + 1 + 1e-6).astype(np.float32)
