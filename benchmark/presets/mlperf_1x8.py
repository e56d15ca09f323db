"""mlperf_fast on one node of eight GPUs: `slurm/configs/{a100,h100,h200}_1x8.sh`."""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_fast
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Global batch 128, the smaller one of those whose convergence is published, by sixteen micro-batches on each GPU."""
    return dataclasses.replace(mlperf_fast.build(), accumulation=16)
