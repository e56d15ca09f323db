"""MSA features of one pass: row sampling, masking, clustering and the features of the model."""

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.raw_features import RawFeatures
from openfold_opt.loader.reference import clustering
from openfold_opt.loader.transforms.msa_draws import RowChoice, draw_pass
from openfold_opt.loader.transforms.msa_features import deletion_value, has_deletion, make_msa_feat


def make_msa_pass(
    raw: RawFeatures,
    *,
    crop: slice,
    config: DataConfig,
    rows_rng: np.random.Generator,
    mask_rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw rows and masking, and compute the per-pass features, unpadded.

    Rows are clustered over the whole chain; only the features are cropped.
    """
    drawn = draw_pass(raw, config=config, rows_rng=rows_rng, mask_rng=mask_rng)
    features = msa_features_of_choice(
        raw,
        rows=drawn.rows,
        masked_msa=drawn.masked_msa,
        crop=crop,
        max_extra_msa=config.max_extra_msa,
    )
    return features | {"bert_mask": drawn.bert_mask[:, crop]}


def msa_features_of_choice(
    raw: RawFeatures, *, rows: RowChoice, masked_msa: np.ndarray, crop: slice, max_extra_msa: int
) -> dict[str, np.ndarray]:
    """Compute the features that follow from given rows and a given masking. Draws nothing.

    Args:
        raw: the chain.
        rows: which rows are cluster centers and which are extra rows.
        masked_msa: uint8 [N_clust, N_res], classes 0..22, the whole chain.
        crop: residues to return.
        max_extra_msa: maximum number of extra rows to return; the first ones are kept.

    Returns:
        name -> array, all per-pass features except bert_mask; N_clust = len(rows.clustered),
        N_extra = min(len(rows.extra), max_extra_msa), N_res = length of the crop.
    """
    extra = raw.classes(rows.extra)
    assignment = clustering.assign_to_clusters(extra, masked_msa)
    centers = masked_msa[:, crop]
    profile = clustering.cluster_profile(centers, extra[:, crop], assignment)
    deletion_mean = clustering.cluster_deletion_mean(
        raw.deletions,
        clustered=rows.clustered,
        extra=rows.extra,
        assignment=assignment,
        columns=crop,
    )
    deletions = raw.deletions.dense(rows.clustered, crop)
    kept = extra[:max_extra_msa, crop]
    kept_deletions = raw.deletions.dense(rows.extra[:max_extra_msa], crop)
    return {
        "msa_feat": make_msa_feat(
            centers, deletions=deletions, profile=profile, deletion_mean=deletion_mean
        ),
        "msa_mask": np.ones(centers.shape, np.float32),
        "msa_row_mask": np.ones(len(centers), np.float32),
        "true_msa": raw.classes(rows.clustered, crop),
        "extra_msa": kept,
        "extra_msa_mask": np.ones(kept.shape, np.float32),
        "extra_has_deletion": has_deletion(kept_deletions),
        "extra_deletion_value": deletion_value(kept_deletions),
    }
