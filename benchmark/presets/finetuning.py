"""AlphaFold2's fine-tuning of weights of initial_training. Open division.

It starts from the weights that `--init-checkpoint` names: a file, or the output directory of a run,
whose running average it takes. Sources as in `initial_training`: [A] AlphaFold2 supplement,
recalled; [O] OpenFold; [B] NVIDIA's BioNeMo OpenFold. Other values are those of initial_training.

The number of GPUs is free, as in initial_training. A sample has 2.25 times the pairs of initial
training, 6 times the clustered MSA and 7.5 times the extra MSA.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import initial_training
from openfold_opt.losses.config import LossConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.phase_config import PhaseConfig

STEPS = 12_000  # [A] about 1.5 million samples, in steps of 128


def build() -> RunConfig:
    """Return the preset: 12,000 steps of 128 samples of 384 residues."""
    config = initial_training.build()
    return dataclasses.replace(
        config,
        loss=LossConfig.finetuning(),  # [A], [O] violations 1.0, experimentally resolved 0.01
        data=dataclasses.replace(
            config.data,
            crop_size=384,  # [A], [O], [B]
            max_msa_clusters=508,  # [B]; with 4 rows of templates the 512 of [A] and [O]
            max_extra_msa=5120,  # [A], [O], [B]
        ),
        schedule=ScheduleConfig(
            base_learning_rate=5e-4,  # [A], [B]
            warmup_steps=0,  # [A]; one step in [B]
            decay_every_steps=8_000,  # [B]; no decay in [A]
            decay_factor=0.95,  # [B]
        ),
        evaluation=dataclasses.replace(config.evaluation, every_steps=100),  # [B]
        # A phase without end_lddt_ca takes all of its steps, whatever the score.
        phases=(PhaseConfig(name="finetuning", steps=STEPS),),
        max_steps=STEPS,
        requires_init_checkpoint=True,
    )
