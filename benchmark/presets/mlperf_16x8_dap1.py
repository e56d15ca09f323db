"""mlperf_fast on 128 GPUs with one sample each, with batches out of order.

For `slurm/configs/h100_16x8_dap1.sh`, and for the 16 parallel runs of a throughput job.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_fast
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the preset with global batch 128.

    With many ranks, some sample of every step is slow to prepare. The window of reordering is the
    largest one that was measured (docs/lab_log.md: samples in order and out of order).
    """
    config = mlperf_fast.build()
    return dataclasses.replace(config, loader=dataclasses.replace(config.loader, window=256))
