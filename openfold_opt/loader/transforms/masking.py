"""BERT-style masking of the clustered MSA (AlphaFold2 supplement 1.2.7, step 3)."""

import numpy as np

from openfold_opt.loader.config import DataConfig

NUM_AMINO_ACIDS = 20
MASK_CLASS = 22


def mask_msa(
    msa: np.ndarray, *, profile: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose positions at random and replace them.

    The replacement is a uniformly drawn amino acid, a draw from the profile, the unchanged class,
    or the mask class. Masking precedes clustering, so that the cluster profiles do not reveal the
    masked classes. All positions can be chosen, including gaps and unknown residues.

    Args:
        msa: uint8 [N_clust, N_res], classes 0..21.
        profile: float [N_res, 22], frequencies over all rows of the alignment.
        config: fraction of positions and probability of each replacement.
        rng: the generator of this pass.

    Returns:
        masked MSA, uint8 [N_clust, N_res], classes 0..22, and bert_mask, bool [N_clust, N_res].
    """
    bert_mask = rng.random(msa.shape, dtype=np.float32) < config.masked_msa_fraction
    rows, columns = np.nonzero(bert_mask)
    kind = rng.random(rows.size)
    uniform = rng.integers(0, NUM_AMINO_ACIDS, rows.size, dtype=np.uint8)
    from_profile = _draw_from_columns(profile, columns, rng)
    uniform_end = config.masked_msa_uniform_probability
    profile_end = uniform_end + config.masked_msa_profile_probability
    same_end = profile_end + config.masked_msa_same_probability
    replacement = np.select(
        [kind < uniform_end, kind < profile_end, kind < same_end],
        [uniform, from_profile, msa[rows, columns]],
        MASK_CLASS,
    )
    masked = msa.copy()
    masked[rows, columns] = replacement
    return masked, bert_mask


def _draw_from_columns(
    profile: np.ndarray, columns: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw one class per entry of `columns` from the profile of that column; uint8 [len(columns)].

    Uses inverse transform sampling.
    """
    cumulative = np.cumsum(profile, axis=1, dtype=np.float64)
    threshold = rng.random(columns.size) * cumulative[columns, -1]
    return (cumulative[columns] <= threshold[:, None]).sum(axis=1).astype(np.uint8)
