"""Selection of the alignment rows that become cluster centers or extra rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class RowChoice:
    """Row indices of one pass; the first entry of `clustered` is the query, row 0."""

    clustered: np.ndarray
    """int64 [<= max_msa_clusters]"""
    extra: np.ndarray
    """int64 [num_rows - len(clustered)], all other rows in random order: every prefix is a random
    subset."""


def sample_rows(num_rows: int, *, max_msa_clusters: int, rng: np.random.Generator) -> RowChoice:
    """Draw cluster centers uniformly without replacement; the query is always one of them.

    AlphaFold2 supplement 1.2.7, steps 1-2. The extra rows are not truncated here: all of them are
    assigned to clusters before the first max_extra_msa are kept.
    """
    shuffled = rng.permutation(num_rows - 1) + 1
    num_chosen = min(max_msa_clusters, num_rows) - 1
    return RowChoice(
        clustered=np.concatenate([np.zeros(1, np.int64), shuffled[:num_chosen]]),
        extra=shuffled[num_chosen:],
    )
