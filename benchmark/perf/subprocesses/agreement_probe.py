"""Compute loss and gradients of one training step in a separate process, to measure its memory.

    python -m benchmark.perf.subprocesses.agreement_probe SETTINGS

SETTINGS is JSON: preset, kernels, precision, passes (recycling iterations), threads, gradients (a
file to write). Prints one line of JSON: {"device", "losses": {term: value}, "gradient_norm",
"peak_memory_bytes"}. The file maps parameter names to float32 gradients and is written by
torch.save.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.presets import build_preset
from openfold_opt.kernels.select import KernelConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import (
    build_model,
    build_plans,
    build_train_step,
    describe_device,
    peak_memory_bytes,
    resolve_device,
)
from openfold_opt.train.config import RunConfig
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.step import MicroBatch, StepNumbers
from openfold_opt.train.synthetic_features import synthetic_batch

_SEED = 1
_SHIFT = 0.02
"""Standard deviation of the noise added to every weight.

Final layers are initialized to zero, and a zero layer passes no gradient.
"""


def main() -> None:
    """Compute the step that the settings describe; exit with the reason if it cannot run."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    try:
        config = dataclasses.replace(
            build_preset(settings["preset"]),
            kernels=KernelConfig.all(settings["kernels"]),
            precision=settings["precision"],
        )
        with matmul_precision(config.precision):
            result, gradients = compute(config, passes=settings["passes"])
    except ValueError as error:
        sys.exit(f"{error}")
    torch.save(gradients, Path(settings["gradients"]))
    print(json.dumps(result), flush=True)


def compute(config: RunConfig, *, passes: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metrics of one step with `passes` recycling iterations, and its gradients.

    Weights, features and dropout masks depend only on the preset: they are the same for all kernels
    and precisions. The gradients are float32 tensors on the CPU, one for each parameter.
    """
    device, context = resolve_device(config.device, local_rank=0), ParallelContext.alone()
    model = build_model(config, seed=_SEED, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(_SHIFT * torch.randn(parameter.shape, generator=generator))
    model = model.to(device)
    plan, _ = build_plans(config, context, device)
    step = build_train_step(config, model, plan=plan, context=context, seed=_SEED)
    features = synthetic_batch(
        config.data, batch_size=config.local_batch_size, num_passes=passes + 1
    )
    batch = MicroBatch(
        features=FeatureBatch.from_features(features).to(device),
        slots=torch.arange(config.local_batch_size, device=device),
        sample_ids=("random features",),
    )
    numbers = StepNumbers(step=1, learning_rate=0.0, dropout_seed=step.dropout_seed)
    terms = step.forward_backward(batch, numbers, num_recycling_iterations=passes)
    losses = {name: float(value.detach().mean()) for name, value in terms.terms.items()}
    views = step.buffer.views(step.buffer.gradients)
    gradients = {name: gradient.float().cpu() for name, gradient in views.items()}
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).double().norm()
    result = {
        "device": describe_device(device),
        "losses": losses | {"loss": float(terms.loss.detach())},
        "gradient_norm": float(norm),
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    return result, gradients


if __name__ == "__main__":
    main()
