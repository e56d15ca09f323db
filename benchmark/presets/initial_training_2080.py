"""initial_training on 1,056 GPUs in the first phase and on 2,080 in the second.

ScaleFold's fastest split, 10 hours (abstract; the numbers of each phase are recalled and were not
compared with their source). Eight GPUs share a sample in both phases, and 32 GPUs evaluate.

A preset does not contain the number of ranks, which is that of the job. The phases are two jobs
with the same output directory:

    phase first   1,056 ranks   slurm/configs/h100_132x8_initial.sh   run ... --phase first
    phase second  2,080 ranks   slurm/configs/h100_260x8_initial.sh   run ... --phase second

The first phase is refused on 2,080 ranks, because 256 samples at once are more than its batch. The
second also runs on 1,056, with two micro-batches.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import initial_training_1056
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return initial_training_1056 with DAP 8 in the second phase, too."""
    config = initial_training_1056.build()
    first, second = config.phases
    return dataclasses.replace(config, phases=(first, dataclasses.replace(second, dap_size=8)))
