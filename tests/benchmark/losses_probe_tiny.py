"""`python -m tests.benchmark.losses_probe_tiny SETTINGS`: the probe of `perf losses` on a tiny model and samples out of memory.

Faults are planted by --kernels, a word that the tiny preset has no other use for: "triton" stands for a fast side that learns three times as
fast, "compiled" for one that comes upon a sample that is not a number.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from benchmark.perf.losses_probe import configuration, train
from openfold_opt.train.config import RunConfig
from tests.train.synthetic import MemorySource, tiny_config


def build_tiny() -> RunConfig:
    """Constant learning rate from the first step on, so that runs drift apart within a few."""
    config = tiny_config(use_dropout=False)
    return dataclasses.replace(
        config,
        schedule=dataclasses.replace(
            config.schedule, warmup_steps=1, warmup_init_learning_rate=1e-3
        ),
    )


def main() -> int:
    torch.set_num_threads(1)
    settings = json.loads(sys.argv[1])
    planted, config = settings["kernels"], build_tiny()
    if planted in ("triton", "compiled"):
        settings["kernels"] = "reference"
    if planted == "triton":
        config = dataclasses.replace(
            config, schedule=dataclasses.replace(config.schedule, base_learning_rate=3e-3)
        )
    data = MemorySource(broken_at=3 if planted == "compiled" else None)
    return train(configuration(config, settings), settings, data=data)


if __name__ == "__main__":
    sys.exit(main())
