"""The demo with one training rank and one evaluation rank: torchrun --nproc-per-node 2."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_one_phase
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the demo with evaluations that overlap with training."""
    return dataclasses.replace(
        demo_one_phase.build(), parallel=ParallelConfig(num_evaluation_ranks=1)
    )
