"""The closed division optimized for speed.

It computes what mlperf_reference computes, in bf16 with float32 weights, with Triton kernels and
CUDA graphs, and recomputes only as many blocks in the backward pass as memory requires.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_reference
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return mlperf_reference with the fast implementation of every part."""
    return dataclasses.replace(
        mlperf_reference.build(),
        kernels=KernelConfig.all("triton"),
        precision="bf16",
        recompute="auto",
        cuda_graphs=True,
    )
