"""Times training steps of a preset on made-up features, in a process of its own, so that its peak memory is its own.

    python -m benchmark.perf.step_probe PRESET KERNELS PRECISION PASSES REPEATS THREADS FEATURES.npz

Prints one line of JSON: {"seconds": [...], "peak_memory_bytes", "loss"}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmark.presets import build_preset
from openfold_opt.kernels.select import KernelConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.setup import build_model, build_plans, build_train_step, peak_memory_bytes, resolve_device
from openfold_opt.train.step import MicroBatch


def main() -> None:
    """Two steps before the clock runs: the first allocates, the second has Adam's state."""
    preset, kernels, precision, passes, repeats, threads, features = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = dataclasses.replace(build_preset(preset), kernels=KernelConfig.all(kernels), precision=precision)
    device = resolve_device(config.device, local_rank=0)
    context = ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    step = build_train_step(config, model, plan=plan, context=context, seed=1)
    with np.load(Path(features)) as arrays:
        batch = FeatureBatch.from_features({name: torch.from_numpy(arrays[name]) for name in arrays.files}).to(device)
    micro_batch = MicroBatch(features=batch, slots=torch.arange(batch.batch_size, device=device), sample_ids=("made up",))
    seconds, losses = [], []
    with matmul_precision(config.precision):
        for number in range(1, int(repeats) + 3):
            started = time.perf_counter()
            figures = step.run([micro_batch], step=number, num_recycling_passes=int(passes)).read()
            seconds.append(time.perf_counter() - started)
            losses.append(figures.loss)
    print(json.dumps({"seconds": seconds[2:], "peak_memory_bytes": peak_memory_bytes(device), "losses": losses}))


if __name__ == "__main__":
    main()
