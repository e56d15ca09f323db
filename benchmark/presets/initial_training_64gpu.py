"""initial_training on 64 GPUs of eight nodes, such as `slurm/configs/h100_8x8.sh`.

Every GPU accumulates the gradients of two samples in the first phase and of four in the second.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import initial_training
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return initial_training with the accumulation of the first phase on 64 GPUs."""
    return dataclasses.replace(initial_training.build(), accumulation=2)
