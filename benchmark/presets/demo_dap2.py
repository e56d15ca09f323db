"""The demo with every sample spread over two ranks: torchrun --nproc-per-node 2."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """What the demo computes, by Dynamic Axial Parallelism."""
    # parts of 18 residues are too small to be cut: by gloo on CPUs a step takes a fifth longer with two pieces (docs/lab_log.md)
    return dataclasses.replace(demo.build(), parallel=ParallelConfig(dap_size=2, dap_chunks=1))
