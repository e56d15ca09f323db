"""`python -m tests.benchmark.tiny_benchmark ARGUMENT ...`: the benchmark's command line with one more preset, `tiny`.

The preset trains random samples out of memory for a few seconds, so that runs can be killed, resumed and
refused without any data on the disk. TINY_STEP_SECONDS in the environment slows every step down.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from types import SimpleNamespace

import torch

from benchmark import __main__ as benchmark_main
from benchmark import run
from openfold_opt.parallel.leaving import run_program
from openfold_opt.train.block import BlockRunner
from tests.train.synthetic import MemorySource, tiny_config


def build_tiny(name: str):
    """The preset: 8 steps, an evaluation every 4; `tiny_target` succeeds at the first one."""
    config = tiny_config()
    if name == "tiny_target":
        evaluation = dataclasses.replace(config.evaluation, target_lddt_ca=1e-6)
        return dataclasses.replace(config, evaluation=evaluation)
    return config


def slow_down(seconds: float) -> None:
    """Every step takes so much longer, for whoever wants to kill the run in the middle."""
    report = BlockRunner._report

    def slow_report(self, *args, **kwargs):
        time.sleep(seconds)
        return report(self, *args, **kwargs)

    BlockRunner._report = slow_report


def main() -> int:
    torch.set_num_threads(1)
    original = run.build_preset
    run.build_preset = lambda name: build_tiny(name) if name.startswith("tiny") else original(name)
    run.ShardDataSource = lambda data_dir: MemorySource()
    run.ShardIndex = SimpleNamespace(load=lambda data_dir: SimpleNamespace(checksum="memory", shards=()))
    slow_down(float(os.environ.get("TINY_STEP_SECONDS", "0")))
    return benchmark_main.main(sys.argv[1:])


if __name__ == "__main__":
    run_program(main)
