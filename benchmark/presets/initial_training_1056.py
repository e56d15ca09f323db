"""initial_training on 1,056 GPUs: 1,024 train and 32 evaluate in both phases.

For `slurm/configs/h100_132x8_initial.sh`. ScaleFold reports 12.4 hours for this split (recalled,
not compared with its source). A data-parallel rank has one sample: eight GPUs share it in the first
phase, and four in the second, whose batch is twice as large. Both phases can run in one job.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import initial_training
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return initial_training with DAP 8, then DAP 4."""
    config = initial_training.build()
    first, second = config.phases
    return dataclasses.replace(
        config,
        phases=(
            dataclasses.replace(first, dap_size=8, num_evaluation_ranks=32),
            dataclasses.replace(second, dap_size=4, num_evaluation_ranks=32),
        ),
    )
