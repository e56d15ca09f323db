"""A small model for your own data: all chains of the data set, with some held out. Open division.

It is a starting point: docs/own_data.md describes changes by `--set` or in a preset file.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import real_smoke
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig
from openfold_opt.train.dataset_split import DataSelectionConfig, select_training

MAX_CROP_SIZE = 256
MAX_MSA_CLUSTERS = 16
MAX_EXTRA_MSA = 32
"""Limits of the sizes of samples, for two CPU cores."""
LATEST_DATE = "9999-12-31"
"""After every release date, so that no chain is excluded by its date."""


def build() -> RunConfig:
    """Return the preset: one chain per step; a tenth of the clusters is held out for evaluation."""
    config = real_smoke.build()
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, crop_size=MAX_CROP_SIZE),
        evaluation=dataclasses.replace(config.evaluation, every_steps=100, target_lddt_ca=0.8),
        selection=DataSelectionConfig(
            train_max_release_date=LATEST_DATE,
            validation_rule="share",
            validation_share=0.1,
            exclude_validation=True,
        ),
        max_steps=4000,
        log_every_steps=20,
    )


def fit_to_data(config: RunConfig, index: ShardIndex) -> RunConfig:
    """Set the sizes of samples to those of the largest chains to train on, up to the limits.

    Raises ValueError if the data set has no chain to train on.
    """
    chains = [index.by_id[chain.chain_id] for chain in select_training(index, config.selection)]
    rows = max(chain.num_alignments for chain in chains)
    data = dataclasses.replace(
        config.data,
        crop_size=min(MAX_CROP_SIZE, max(chain.sequence_length for chain in chains)),
        max_msa_clusters=min(MAX_MSA_CLUSTERS, rows),
        max_extra_msa=min(MAX_EXTRA_MSA, max(1, rows - MAX_MSA_CLUSTERS)),
        max_templates=min(1, max(chain.num_template_hits for chain in chains)),
    )
    return dataclasses.replace(config, data=data)
