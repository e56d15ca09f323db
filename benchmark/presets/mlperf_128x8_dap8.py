"""mlperf_fast on 1,024 training GPUs, eight per sample, and 32 evaluation GPUs.

For `slurm/configs/h100_128x8_dap8.sh`.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_16x8_dap1
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the preset with global batch 128."""
    return dataclasses.replace(
        mlperf_16x8_dap1.build(), parallel=ParallelConfig(dap_size=8, num_evaluation_ranks=32)
    )
