"""The demo with every sample sharded over two ranks: torchrun --nproc-per-node 2."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_one_phase
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return the demo with Dynamic Axial Parallelism."""
    # Shards of 18 residues are too small for chunks: with gloo on CPUs, two chunks make a step 20 %
    # slower (docs/lab_log.md).
    return dataclasses.replace(
        demo_one_phase.build(), parallel=ParallelConfig(dap_size=2, dap_chunks=1)
    )
