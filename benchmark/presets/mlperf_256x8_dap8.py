"""mlperf_fast on 2,048 training GPUs, eight per sample, and 32 evaluation GPUs.

For `slurm/configs/h100_260x8_dap8.sh`.
The fastest published result of MLPerf HPC v3.0 had this split: 260 nodes of eight H100, batch 256,
7.5 minutes.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_128x8_dap8
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return mlperf_128x8_dap8 with global batch 256, for twice the number of training ranks."""
    return dataclasses.replace(mlperf_128x8_dap8.build(), global_batch_size=256)
