"""The closed division as fast as one GPU carries it out: bf16 with float32 weights, Triton kernels, CUDA graphs, and no block computed
twice that fits into memory. What is computed is mlperf_reference.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_reference
from openfold_opt.kernels.select import KernelConfig
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """mlperf_reference, carried out otherwise."""
    return dataclasses.replace(
        mlperf_reference.build(),
        kernels=KernelConfig.all("triton"),
        precision="bf16",
        recompute="auto",
        cuda_graphs=True,
    )
