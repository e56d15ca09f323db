"""finetuning with the TM-score head, for predicted aligned errors and pTM. Open division.

It starts from weights with or without the head (`--init-checkpoint`); a missing head gets the
initial values of a new model. Source of the weight of the loss: AlphaFold2 supplement 1.9.7
(recalled), and OpenFold's preset for fine-tuning with pTM.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import finetuning
from openfold_opt.losses.config import LossConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return finetuning with the head and its loss of weight 0.1."""
    config = finetuning.build()
    heads = dataclasses.replace(config.model.auxiliary_heads, has_tm_score=True)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, auxiliary_heads=heads),
        loss=LossConfig.finetuning_ptm(),
    )
