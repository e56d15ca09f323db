"""Which rows of the alignment become cluster centers and which become extra rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class RowChoice:
    """Row numbers of one recycling pass; the query is the first of `clustered`."""

    clustered: np.ndarray
    """int64 [<= max_msa_clusters]"""
    extra: np.ndarray
    """int64 [num_rows - len(clustered)]: all the others, in random order, so that any leading part is a random subset."""


def sample_rows(num_rows: int, *, max_msa_clusters: int, rng: np.random.Generator) -> RowChoice:
    """Draws cluster centers uniformly without replacement, the query always being one (AlphaFold2 supplement 1.2.7, steps 1-2).

    The extra rows are not cut here: all of them are assigned to clusters, and only then the first max_extra_msa are kept.
    """
    shuffled = rng.permutation(num_rows - 1) + 1
    num_chosen = min(max_msa_clusters, num_rows) - 1
    return RowChoice(
        clustered=np.concatenate([np.zeros(1, np.int64), shuffled[:num_chosen]]),
        extra=shuffled[num_chosen:],
    )
