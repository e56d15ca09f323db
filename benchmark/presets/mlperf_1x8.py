"""mlperf_fast on one node of eight GPUs: `slurm/configs/{a100,h100,h200}_1x8.sh`."""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_fast
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the preset with global batch 128: 16 micro-batches of one sample on each GPU.

    It is the smaller of the two batches with reference convergence points of MLCommons.
    """
    return dataclasses.replace(mlperf_fast.build(), accumulation=16)
