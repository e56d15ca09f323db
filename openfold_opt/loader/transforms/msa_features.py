"""Final MSA and target features: one-hot classes, deletion features, cluster profiles side by side."""

import numpy as np

NUM_MSA_CLASSES = 23
NUM_RESIDUE_CLASSES = 21


def deletion_value(deletions: np.ndarray) -> np.ndarray:
    """2/pi atan(count / 3), float32 of the input's shape, 0 to 1."""
    return (np.arctan(deletions / np.float32(3)) * np.float32(2 / np.pi)).astype(np.float32)


def has_deletion(deletions: np.ndarray) -> np.ndarray:
    """1 where a count is 1 or more, float32 of the input's shape."""
    return np.clip(deletions, 0, 1).astype(np.float32)


def make_msa_feat(
    masked_msa: np.ndarray, *, deletions: np.ndarray, profile: np.ndarray, deletion_mean: np.ndarray
) -> np.ndarray:
    """msa_feat of the clustered rows (AlphaFold2 supplement, table 1).

    Args:
        masked_msa: uint8 [N_clust, N_res], classes 0..22.
        deletions: float32 [N_clust, N_res], counts of the centers.
        profile: float32 [N_clust, N_res, 23], of the clusters.
        deletion_mean: float32 [N_clust, N_res], mean counts of the clusters.

    Returns:
        float32 [N_clust, N_res, 49].
    """
    one_hot = np.eye(NUM_MSA_CLASSES, dtype=np.float32)[masked_msa]
    return np.concatenate(
        [
            one_hot,
            has_deletion(deletions)[..., None],
            deletion_value(deletions)[..., None],
            profile,
            deletion_value(deletion_mean)[..., None],
        ],
        axis=-1,
    )


def make_target_feat(aatype: np.ndarray) -> np.ndarray:
    """target_feat float32 [N_res, 22]: the domain-break flag, 0 for a chain, and the one-hot of aatype int [N_res]."""
    one_hot = np.eye(NUM_RESIDUE_CLASSES, dtype=np.float32)[aatype]
    return np.concatenate([np.zeros((len(aatype), 1), np.float32), one_hot], axis=-1)
