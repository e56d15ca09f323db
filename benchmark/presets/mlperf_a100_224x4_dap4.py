"""mlperf_fast on 872 training A100, four per sample, and 24 evaluation A100.

For `slurm/configs/a100_224x4_dap4.sh`.
HPE and LBNL had this split on Perlmutter in MLPerf HPC v3.0: batch 218, 14.65 minutes.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_16x8_dap1
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the preset with global batch 218."""
    parallel = ParallelConfig(dap_size=4, num_evaluation_ranks=24)
    return dataclasses.replace(mlperf_16x8_dap1.build(), parallel=parallel, global_batch_size=218)
