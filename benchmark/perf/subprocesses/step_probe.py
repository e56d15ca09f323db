"""Time training steps of a preset in a separate process, to measure its peak memory.

    python -m benchmark.perf.subprocesses.step_probe SETTINGS

SETTINGS is the JSON of StepSettings. Prints a line of JSON after the profile and after every timed
step, with all metrics so far: TimedSteps, or ProfiledSteps if the settings request a profile.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.perf.tools.module_times import ModuleProfile, time_modules
from benchmark.perf.tools.perf_record import from_json, to_json
from benchmark.perf.tools.timing_stats import StepTimes
from benchmark.presets import build_preset
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import (
    build_model,
    build_plans,
    build_train_step,
    peak_memory_bytes,
    resolve_device,
)
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.recorder import CudaRecorder
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.optim.lr_schedule import learning_rate
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.process_memory import keep_freed_memory, paused_garbage_collection
from openfold_opt.train.step import MicroBatch, TrainStep

_UNTIMED_STEPS = 2
"""The first step allocates memory; the second is the first with Adam's state."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Settings of this probe."""

    preset: str
    kernels: str
    precision: str
    graphs: bool | None
    """Whether to use CUDA graphs, None for the preset's choice."""
    passes: int
    """Number of recycling iterations."""
    repeats: int
    """Number of timed steps."""
    threads: int
    features: str
    """.npz file of a batch."""
    modules: bool
    """Whether to profile a step, by module."""
    trace: str | None
    """File for the events of the profiled step."""


@dataclass(frozen=True, kw_only=True)
class TimedSteps(StepTimes):
    """Timed steps of our code."""

    graphs: bool
    """Whether the timed steps were replays of CUDA graphs."""


@dataclass(frozen=True, kw_only=True)
class ProfiledSteps(TimedSteps, ModuleProfile):
    """Timed steps, and the profile of an untimed one."""


def main() -> None:
    """Time the steps that the settings describe; exit with the reason if they cannot run."""
    settings = from_json(StepSettings, json.loads(sys.argv[1]))
    torch.set_num_threads(settings.threads)
    try:
        config = configuration(build_preset(settings.preset), settings)
        with matmul_precision(config.precision):
            _measure(config, settings)
    except ValueError as error:
        sys.exit(f"{error}")


def configuration(config: RunConfig, settings: StepSettings) -> RunConfig:
    """Return the preset with the kernels, precision and graphs of the settings."""
    kernels = KernelConfig.all(settings.kernels)
    config = dataclasses.replace(config, kernels=kernels, precision=settings.precision)
    if settings.graphs is None:
        return config
    return dataclasses.replace(
        config,
        cuda_graphs=settings.graphs,
        device="cuda" if settings.graphs else config.device,
    )


def _measure(config: RunConfig, settings: StepSettings) -> None:
    device, passes = resolve_device(config.device, local_rank=0), settings.passes
    if device.type == "cpu":
        # Training does this too.
        keep_freed_memory()
    context = ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    step = build_train_step(config, model, plan=plan, context=context, seed=1)
    micro_batch = _read_micro_batch(Path(settings.features), device)
    runner: TrainStep | StepGraphs = step

    def run(number: int) -> float:
        micro_batches = [micro_batch] * config.accumulation
        metrics = runner.run(
            micro_batches,
            step=number,
            learning_rate=learning_rate(config.schedule, number),
            num_recycling_iterations=passes,
        )
        return metrics.read().loss

    profile: ModuleProfile | None = None
    seconds: list[float] = []
    losses: list[float] = []

    def print_metrics() -> None:
        times = TimedSteps(
            graphs=config.cuda_graphs,
            seconds=seconds[_UNTIMED_STEPS:],
            losses=losses,
            peak_memory_bytes=peak_memory_bytes(device),
        )
        result = times if profile is None else ProfiledSteps(**vars(times), **vars(profile))
        print(json.dumps(to_json(result)), flush=True)

    if settings.modules:
        # Profile before the capture: a graph replay runs no module hooks, and the graph's memory
        # pool is not available to eager steps.
        for _ in range(2):
            run(1)
        trace = None if settings.trace is None else Path(settings.trace)
        profile = time_modules(lambda: run(1), model, trace=trace)
        print_metrics()
    if config.cuda_graphs:
        runner = StepGraphs(step, CudaRecorder(device), micro_batch=micro_batch)
        runner.warm_up_run(passes)
        runner.record(passes)
    with paused_garbage_collection():
        for number in range(1, settings.repeats + _UNTIMED_STEPS + 1):
            started = time.perf_counter()
            loss = run(number)
            seconds.append(time.perf_counter() - started)
            losses.append(loss)
            if number > _UNTIMED_STEPS:
                print_metrics()
    if profile is not None and config.cuda_graphs:
        replay = time_modules(lambda: run(1), model)  # A replay has fewer launches.
        profile = dataclasses.replace(profile, launches=replay.launches)
        print_metrics()


def _read_micro_batch(features: Path, device: torch.device) -> MicroBatch:
    with np.load(features) as arrays:
        batch = FeatureBatch.from_features(
            {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        ).to(device)
    return MicroBatch(
        features=batch,
        slots=torch.arange(batch.batch_size, device=device),
        sample_ids=("synthetic",),
    )


if __name__ == "__main__":
    main()
