"""mlperf_fast on 128 GPUs, a sample each: `slurm/configs/h100_16x8_dap1.sh`, and sixteen times side by side in a throughput job."""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_fast
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Global batch 128. With so many ranks some sample of a step is always slow, so batches may come out of order, as far as was measured
    (docs/lab_log.md: samples in order and out of order)."""
    config = mlperf_fast.build()
    return dataclasses.replace(config, loader=dataclasses.replace(config.loader, window=256))
