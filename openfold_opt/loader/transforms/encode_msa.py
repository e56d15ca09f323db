"""Wire features of the MSA: all passes of a sample, clustered together."""

from collections.abc import Sequence

import numpy as np

from openfold_opt.loader import wire_format
from openfold_opt.loader.raw_features import RawFeatures
from openfold_opt.loader.transforms import fast_clustering
from openfold_opt.loader.transforms.msa_draws import MaskedRows
from openfold_opt.protein.sparse_deletions import SparseDeletions

CENTER = -1
"""Value in an assignment for a row that is a cluster center."""


def encode_msa(
    raw: RawFeatures, *, passes: Sequence[MaskedRows], crop: slice, max_extra_msa: int
) -> dict[str, np.ndarray]:
    """Return the per-pass wire features, num_clusters and num_extra, unpadded.

    Rows are clustered over the whole chain; only the returned features are cropped.
    loader.wire_format has the table of features.
    """
    centers = np.stack([drawn.masked_msa for drawn in passes])
    assignments = fast_clustering.assign_rows(raw.msa, centers, raw.class_of_token)
    entries = raw.deletions.entries(np.arange(len(raw.msa)), crop)
    parts = []
    for drawn, assignment in zip(passes, assignments):
        # Cluster sizes and deletions include the centers, profiles do not.
        assignment[drawn.rows.clustered] = np.arange(len(drawn.rows.clustered))
        clusters = _clusters(raw, drawn=drawn, assignment=assignment, entries=entries, crop=crop)
        assignment[drawn.rows.clustered] = CENTER
        profiles = _profiles(raw, assignment=assignment, num_clusters=centers.shape[1], crop=crop)
        parts.append(
            clusters | profiles | _extra_rows(raw, rows=drawn.rows.extra[:max_extra_msa], crop=crop)
        )
    return {
        "num_clusters": np.array(centers.shape[1]),
        "num_extra": np.array(parts[0]["extra_msa"].shape[0]),
        **{name: _join(name, [part[name] for part in parts]) for name in parts[0]},
    }


def _join(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    spec = wire_format.WIRE_FEATURES[name]
    if not spec.is_packed:
        return np.stack(arrays)
    joined = np.concatenate(arrays)
    return wire_format.smallest_integers(joined) if len(spec.dtypes) > 1 else joined


def _clusters(
    raw: RawFeatures,
    *,
    drawn: MaskedRows,
    assignment: np.ndarray,
    entries: tuple[np.ndarray, np.ndarray, np.ndarray],
    crop: slice,
) -> dict[str, np.ndarray]:
    """Return the features of the cluster centers and the deletions of the clusters.

    `assignment` assigns each center to its own cluster. `entries` are the deletions in the crop.
    """
    tokens = raw.classes(drawn.rows.clustered, crop)
    is_chosen = drawn.bert_mask[:, crop]
    tokens[is_chosen] |= wire_format.IS_CHOSEN
    deletions = _flag_deletions(raw.deletions, drawn.rows.clustered, crop, tokens)
    row, column, count = entries
    # Sum the counts per cluster and column, in a flat array.
    totals = np.bincount(
        assignment[row] * tokens.shape[1] + column, weights=count, minlength=tokens.size
    )
    has_deletion = totals > 0
    tokens[has_deletion.reshape(tokens.shape)] |= wire_format.CLUSTER_HAS_DELETION
    return {
        "msa": tokens,
        "cluster_size": np.bincount(assignment, minlength=len(tokens)),
        "masked_classes": drawn.masked_msa[:, crop][is_chosen],
        "deletions": deletions,
        "cluster_deletions": totals[has_deletion].astype(np.int64),
    }


def _profiles(
    raw: RawFeatures, *, assignment: np.ndarray, num_clusters: int, crop: slice
) -> dict[str, np.ndarray]:
    flags, counts = fast_clustering.count_members(
        raw.msa, assignment, num_clusters=num_clusters, crop=crop, class_of_token=raw.class_of_token
    )
    return {"profile_flags": flags, "profile_counts": counts}


def _extra_rows(raw: RawFeatures, *, rows: np.ndarray, crop: slice) -> dict[str, np.ndarray]:
    tokens = raw.classes(rows, crop)
    return {
        "extra_msa": tokens,
        "extra_deletions": _flag_deletions(raw.deletions, rows, crop, tokens),
    }


def _flag_deletions(
    deletions: SparseDeletions, rows: np.ndarray, crop: slice, tokens: np.ndarray
) -> np.ndarray:
    """Set HAS_DELETION in `tokens` [len(rows), crop length]; return counts in row-major order."""
    row_index, column, count = deletions.entries(rows, crop)
    flat = row_index * tokens.shape[1] + column
    order = np.argsort(flat)
    tokens.reshape(-1)[flat] |= wire_format.HAS_DELETION
    return count[order]
