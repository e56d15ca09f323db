"""The benchmark's channels; depth and samples fit a CPU. For `perf step`. Open division."""

from __future__ import annotations

import dataclasses

from benchmark.presets import mlperf_reference
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return mlperf_reference with small samples, four Evoformer blocks and float32."""
    config = mlperf_reference.build()
    evoformer = dataclasses.replace(config.model.evoformer_stack, num_blocks=4)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, evoformer_stack=evoformer),
        data=dataclasses.replace(config.data, crop_size=64, max_msa_clusters=32, max_extra_msa=64),
        global_batch_size=1,
        init_checkpoint_sha256=None,
        precision="fp32",
        recompute=False,
        device="auto",
    )
