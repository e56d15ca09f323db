"""mlperf_fast on 128 GPUs with one sample each, with batches out of order.

For `slurm/configs/h100_16x8_dap1.sh`, and for the 16 parallel runs of a throughput job.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_fast
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the preset with global batch 128.

    With many ranks, almost every step has a sample that is slow to prepare. Up to 256 later batches
    may be used first, the largest window that was measured (docs/lab_log.md: samples in order and
    out of order).
    """
    config = mlperf_fast.build()
    return dataclasses.replace(config, loader=dataclasses.replace(config.loader, window=256))
