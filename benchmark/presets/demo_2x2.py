"""The demo on four ranks: two samples in parallel, each sharded over two ranks.

For `slurm/configs/cpu_2x2.sh`.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_dap2
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return demo_dap2 with one sample for each pair of ranks."""
    return dataclasses.replace(demo_dap2.build(), local_batch_size=1)
