"""`python -m tests.support.tiny_benchmark ARGUMENT ...`: the benchmark with a preset `tiny`.

The preset trains on random samples in memory for a few seconds, so that runs can be killed, resumed
and refused without data on the disk. Environment variables:

    TINY_STEP_SECONDS       additional time of each step
    TINY_WARM_UP_SECONDS    additional time of the warm-up
    TINY_CHANGES            fields of the preset as JSON
    TINY_REAL_INDEX         read the index of the data directory
    TINY_REPORT_SECONDS     interval of the messages of waiting ranks
    TINY_BROKEN_SAMPLE      number of a sample that contains NaN
    TINY_HEARTBEAT_SECONDS  time after which a silent rank is lost
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmark import __main__ as benchmark_main
from benchmark.run import command as run
from benchmark.run import page_cache, request
from openfold_opt.parallel import waiting
from openfold_opt.parallel.process_exit import run_program
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train import phase_runner
from openfold_opt.train.phase_config import PhaseConfig
from openfold_opt.train.training_interval import TrainingInterval
from tests.support.synthetic_samples import MemorySource, tiny_config


def build_tiny(name: str):
    """Return a preset of 8 steps with an evaluation every 4 steps.

    `tiny_target` reaches its target at the first evaluation. `tiny_phases` has two phases of four
    steps; the first one of `tiny_condition` requires a score that it does not reach.
    """
    config = tiny_config(**json.loads(os.environ.get("TINY_CHANGES", "{}")))
    if "TINY_HEARTBEAT_SECONDS" in os.environ:
        seconds = float(os.environ["TINY_HEARTBEAT_SECONDS"])
        config = dataclasses.replace(
            config, parallel=dataclasses.replace(config.parallel, heartbeat_seconds=seconds)
        )
    if name == "tiny_target":
        evaluation = dataclasses.replace(config.evaluation, target_lddt_ca=1e-6)
        return dataclasses.replace(config, evaluation=evaluation)
    if name in ("tiny_phases", "tiny_condition"):
        required = 1.0 if name == "tiny_condition" else None
        first = PhaseConfig(name="first", steps=4, required_lddt_ca=required)
        second = PhaseConfig(name="second", steps=4, global_batch_size=2)
        return dataclasses.replace(config, global_batch_size=1, phases=(first, second))
    return config


def slow_down(seconds: float) -> None:
    """Make every step slower, so that a test can kill the run in the middle."""
    report = TrainingInterval._report

    def slow_report(self, *args, **kwargs):
        time.sleep(seconds)
        return report(self, *args, **kwargs)

    TrainingInterval._report = slow_report


def slow_down_warm_up(seconds: float) -> None:
    """Add a pause, after a line that announces it, to the warm-up before the clock starts."""
    warm_up = phase_runner.warm_up

    def slow_warm_up(*args, report, **kwargs):
        report("pausing in the warm-up")
        time.sleep(seconds)
        return warm_up(*args, report=report, **kwargs)

    phase_runner.warm_up = slow_warm_up


class IndexedMemorySource(MemorySource):
    """Samples in memory with the checksum of a real index."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self._data_dir = data_dir

    def checksum(self) -> str:
        return ShardIndex.load(self._data_dir).checksum


def main() -> int:
    torch.set_num_threads(1)
    original = request.build_preset
    request.build_preset = lambda name: (
        build_tiny(name) if name.startswith("tiny") else original(name)
    )
    if "TINY_REAL_INDEX" in os.environ:
        run.ShardDataSource = IndexedMemorySource
    else:
        broken_at = int(os.environ.get("TINY_BROKEN_SAMPLE", -1))
        run.ShardDataSource = lambda data_dir: MemorySource(broken_at=broken_at)
        run.data_checksum = lambda *folders: "memory"
        page_cache.ShardIndex = SimpleNamespace(
            load=lambda data_dir: SimpleNamespace(checksum="memory", shards=())
        )
    waiting.REPORT_SECONDS = float(os.environ.get("TINY_REPORT_SECONDS", waiting.REPORT_SECONDS))
    slow_down(float(os.environ.get("TINY_STEP_SECONDS", "0")))
    if "TINY_WARM_UP_SECONDS" in os.environ:
        slow_down_warm_up(float(os.environ["TINY_WARM_UP_SECONDS"]))
    return benchmark_main.main(sys.argv[1:])


if __name__ == "__main__":
    run_program(main)
