"""The probe of `perf losses` on a tiny model and samples in memory.

    python -m tests.support.tiny_losses_probe SETTINGS

The option --kernels, which the tiny preset does not need, selects a fault to inject: "triton"
triples the learning rate, "cpu" adds a sample with NaN values.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from benchmark.perf.subprocesses.losses_probe import RunSettings, configuration, train
from benchmark.perf.tools.perf_record import from_json
from openfold_opt.train.config import RunConfig
from tests.support.synthetic_samples import MemorySource, tiny_config


def build_tiny() -> RunConfig:
    """Return a preset with a constant learning rate, so that runs diverge within a few steps."""
    config = tiny_config(use_dropout=False)
    return dataclasses.replace(
        config,
        schedule=dataclasses.replace(
            config.schedule, warmup_steps=1, warmup_init_learning_rate=1e-3
        ),
    )


def main() -> int:
    torch.set_num_threads(1)
    settings = from_json(RunSettings, json.loads(sys.argv[1]))
    fault, config = settings.kernels, build_tiny()
    if fault in ("triton", "cpu"):
        settings = dataclasses.replace(settings, kernels="reference")
    if fault == "triton":
        config = dataclasses.replace(
            config, schedule=dataclasses.replace(config.schedule, base_learning_rate=3e-3)
        )
    data = MemorySource(broken_at=3 if fault == "cpu" else None)
    return train(configuration(config, settings), settings, data=data)


if __name__ == "__main__":
    sys.exit(main())
