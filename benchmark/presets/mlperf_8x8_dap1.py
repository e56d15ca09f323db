"""mlperf_fast on 64 GPUs of eight nodes: `slurm/configs/h100_8x8.sh`."""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_16x8_dap1
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the preset with global batch 128: two micro-batches on each GPU."""
    return dataclasses.replace(mlperf_16x8_dap1.build(), accumulation=2)
