"""Time training steps of a preset in a separate process, to measure its peak memory.

    python -m benchmark.perf.subprocesses.step_probe SETTINGS

SETTINGS is JSON: preset, kernels, precision, graphs (true, false, or null for the preset's choice),
passes (recycling iterations), repeats, threads, features (an .npz file), modules (true: profile by
module), trace (a file or null). Prints a line of JSON after the profile and after every timed step,
with all metrics so far: {"seconds", "peak_memory_bytes", "losses", "graphs", ...}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.perf.tools.module_times import time_modules
from benchmark.presets import build_preset
from openfold_opt.kernels.select import KernelConfig
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
from openfold_opt.train.step import MicroBatch, StepMetrics, TrainStep

_UNTIMED_STEPS = 2
"""The first step allocates memory; the second is the first with Adam's state."""


def main() -> None:
    """Time the steps that the settings describe; exit with the reason if they cannot run."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    config = build_preset(settings["preset"])
    try:
        config = configuration(config, settings)
        with matmul_precision(config.precision):
            _measure(config, settings)
    except ValueError as error:
        sys.exit(f"{error}")


def configuration(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """Return the preset with the kernels, precision and graphs of the settings."""
    kernels = KernelConfig.all(settings["kernels"])
    config = dataclasses.replace(config, kernels=kernels, precision=settings["precision"])
    if settings["graphs"] is None:
        return config
    device = {"device": "cuda"} if settings["graphs"] else {}
    return dataclasses.replace(config, cuda_graphs=settings["graphs"], **device)


def _run_step(
    runner: TrainStep | StepGraphs,
    *,
    number: int,
    micro_batches: list[MicroBatch],
    config: RunConfig,
    passes: int,
) -> StepMetrics:
    return runner.run(
        micro_batches,
        step=number,
        learning_rate=learning_rate(config.schedule, number),
        num_recycling_iterations=passes,
    ).read()


def _measure(config: RunConfig, settings: dict[str, Any]) -> None:
    device, passes = resolve_device(config.device, local_rank=0), settings["passes"]
    if device.type == "cpu":
        # Training does this too.
        keep_freed_memory()
    context = ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    step = build_train_step(config, model, plan=plan, context=context, seed=1)
    with np.load(Path(settings["features"])) as arrays:
        batch = FeatureBatch.from_features(
            {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        ).to(device)
    micro_batch = MicroBatch(
        features=batch,
        slots=torch.arange(batch.batch_size, device=device),
        sample_ids=("synthetic",),
    )
    micro_batches = [micro_batch] * config.accumulation
    run_step = partial(_run_step, micro_batches=micro_batches, config=config, passes=passes)
    result: dict[str, Any] = {"graphs": config.cuda_graphs}
    if settings["modules"]:
        # Profile before the capture: a graph replay runs no module hooks, and the graph's memory
        # pool is not available to eager steps.
        trace = None if settings["trace"] is None else Path(settings["trace"])
        for _ in range(2):
            run_step(step, number=1)
        result |= time_modules(
            lambda: run_step(step, number=1),
            model,
            trace=trace,
        )
        print(json.dumps(result), flush=True)
    runner: TrainStep | StepGraphs = step
    if config.cuda_graphs:
        graphs = StepGraphs(step, CudaRecorder(device), micro_batch=micro_batch)
        graphs.warm_up_run(passes)
        graphs.record(passes)
        runner = graphs
    seconds, losses = [], []
    with paused_garbage_collection():
        for number in range(1, settings["repeats"] + _UNTIMED_STEPS + 1):
            started = time.perf_counter()
            metrics = run_step(runner, number=number)
            seconds.append(time.perf_counter() - started)
            losses.append(metrics.loss)
            if number > _UNTIMED_STEPS:
                result |= {"seconds": seconds[_UNTIMED_STEPS:], "losses": losses}
                result["peak_memory_bytes"] = peak_memory_bytes(device)
                print(json.dumps(result), flush=True)
    if settings["modules"] and config.cuda_graphs:
        replay = time_modules(lambda: run_step(runner, number=1), model)
        result["launches"] = replay["launches"]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
