"""The demo with a rank that only evaluates: torchrun --nproc-per-node 2, one rank trains and one evaluates."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """What the demo computes, without stopping for evaluations."""
    return dataclasses.replace(demo.build(), parallel=ParallelConfig(num_evaluation_ranks=1))
