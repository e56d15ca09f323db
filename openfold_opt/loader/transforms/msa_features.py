"""MSA and target features in NumPy; loader.decode computes the same from wire features."""

import numpy as np

NUM_MSA_CLASSES = 23
"""20 amino acids, unknown, gap and mask."""
NUM_RESIDUE_CLASSES = 21
"""20 amino acids and unknown."""
NUM_AGREEING_CLASSES = 21
"""In clustering, amino acids and unknown count as agreement; gap (21) and mask (22) do not."""


def deletion_value(deletions: np.ndarray) -> np.ndarray:
    """Return 2/pi atan(count / 3), between 0 and 1, as float32 of the shape of the input."""
    return (np.arctan(deletions / np.float32(3)) * np.float32(2 / np.pi)).astype(np.float32)


def has_deletion(deletions: np.ndarray) -> np.ndarray:
    """Return 1 where a count is at least 1, as float32 of the shape of the input."""
    return np.clip(deletions, 0, 1).astype(np.float32)


def make_msa_feat(
    masked_msa: np.ndarray, *, deletions: np.ndarray, profile: np.ndarray, deletion_mean: np.ndarray
) -> np.ndarray:
    """Return msa_feat of the clustered rows (AlphaFold2 supplement, table 1).

    Args:
        masked_msa: uint8 [N_clust, N_res], classes 0..22.
        deletions: float32 [N_clust, N_res], deletion counts of the centers.
        profile: float32 [N_clust, N_res, 23], of the clusters.
        deletion_mean: float32 [N_clust, N_res], mean deletion counts of the clusters.

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
    """Return target_feat, float32 [N_res, 22], for aatype, int [N_res].

    The first channel is the domain-break flag, always 0; the others are the one-hot encoding.
    """
    one_hot = np.eye(NUM_RESIDUE_CLASSES, dtype=np.float32)[aatype]
    return np.concatenate([np.zeros((len(aatype), 1), np.float32), one_hot], axis=-1)
