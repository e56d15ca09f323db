"""The random choices of a pass: the rows of the alignment, and the masked positions."""

from dataclasses import dataclass

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.random_streams import Purpose, random_stream
from openfold_opt.loader.raw_features import RawFeatures

NUM_AMINO_ACIDS = 20
MASK_CLASS = 22


@dataclass(frozen=True, kw_only=True)
class RowChoice:
    """Row indices of one pass; the first entry of `clustered` is the query, row 0."""

    clustered: np.ndarray
    """int64 [<= max_msa_clusters]"""
    extra: np.ndarray
    """int64 [num_rows - len(clustered)], all other rows in random order: every prefix is a random
    subset."""


@dataclass(frozen=True, kw_only=True)
class MaskedRows:
    """The random choices of one pass."""

    rows: RowChoice
    masked_msa: np.ndarray
    """uint8 [N_clust, N_res], classes 0..22, the whole chain."""
    bert_mask: np.ndarray
    """bool [N_clust, N_res], True at positions chosen for masking."""


def draw_passes(raw: RawFeatures, *, config: DataConfig, seed: int) -> list[MaskedRows]:
    """Draw the rows and the masking of each pass; every pass has its own random streams."""
    return [
        draw_pass(
            raw,
            config=config,
            rows_rng=random_stream(seed, Purpose.MSA_ROWS, number),
            mask_rng=random_stream(seed, Purpose.MSA_MASKING, number),
        )
        for number in range(config.num_passes)
    ]


def draw_pass(
    raw: RawFeatures,
    *,
    config: DataConfig,
    rows_rng: np.random.Generator,
    mask_rng: np.random.Generator,
) -> MaskedRows:
    """Draw the rows and the masking of one pass."""
    rows = sample_rows(len(raw.msa), max_msa_clusters=config.max_msa_clusters, rng=rows_rng)
    masked, bert_mask = mask_msa(
        raw.classes(rows.clustered), profile=raw.profile, config=config, rng=mask_rng
    )
    return MaskedRows(rows=rows, masked_msa=masked, bert_mask=bert_mask)


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


def mask_msa(
    msa: np.ndarray, *, profile: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose positions at random and replace them (AlphaFold2 supplement 1.2.7, step 3).

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
    # A number from 0 to 1 per position; it selects the kind of replacement.
    selector = rng.random(rows.size)
    uniform = rng.integers(0, NUM_AMINO_ACIDS, rows.size, dtype=np.uint8)
    from_profile = _draw_from_columns(profile, columns, rng)
    uniform_end = config.masked_msa_uniform_probability
    profile_end = uniform_end + config.masked_msa_profile_probability
    same_end = profile_end + config.masked_msa_same_probability
    replacement = np.select(
        [selector < uniform_end, selector < profile_end, selector < same_end],
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
