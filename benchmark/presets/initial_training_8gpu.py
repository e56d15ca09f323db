"""initial_training on one node of eight GPUs, such as `slurm/configs/h100_1x8.sh`.

Every GPU accumulates the gradients of 16 samples in the first phase and of 32 in the second, so a
step has as many samples as on any other number of GPUs.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import initial_training
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return initial_training with the accumulation of the first phase on eight GPUs."""
    return dataclasses.replace(initial_training.build(), accumulation=16)
