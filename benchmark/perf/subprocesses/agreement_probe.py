"""Compute loss and gradients of one training step in a separate process, to measure its memory.

    python -m benchmark.perf.subprocesses.agreement_probe SETTINGS

SETTINGS is the JSON of AgreementSettings. Prints the JSON of a VariantResult in one line, and
writes the gradients to a file.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.perf.tools.perf_record import from_json, to_json
from benchmark.presets import build_preset
from openfold_opt.kernels.interface import KernelConfig
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
_NOISE = 0.02
"""Standard deviation of the noise added to every weight.

Final layers are initialized to zero, and a zero layer passes no gradient.
"""


@dataclass(frozen=True, kw_only=True)
class AgreementSettings:
    """Settings of this probe."""

    preset: str
    kernels: str
    precision: str
    passes: int
    """Number of recycling iterations."""
    threads: int
    gradients: str
    """File to write with torch.save: parameter name -> float32 gradient."""


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """Result of one step."""

    device: str
    losses: dict[str, float]
    """Loss terms, and "loss", their weighted sum."""
    gradient_norm: float
    peak_memory_bytes: int


def main() -> None:
    """Compute the step that the settings describe; exit with the reason if it cannot run."""
    settings = from_json(AgreementSettings, json.loads(sys.argv[1]))
    torch.set_num_threads(settings.threads)
    try:
        config = dataclasses.replace(
            build_preset(settings.preset),
            kernels=KernelConfig.all(settings.kernels),
            precision=settings.precision,
        )
        with matmul_precision(config.precision):
            result, gradients = compute(config, passes=settings.passes)
    except ValueError as error:
        sys.exit(f"{error}")
    torch.save(gradients, settings.gradients)
    print(json.dumps(to_json(result)), flush=True)


def compute(config: RunConfig, *, passes: int) -> tuple[VariantResult, dict[str, Tensor]]:
    """Return the result of one step with `passes` recycling iterations, and its gradients.

    Weights, features and dropout masks depend only on the preset: they are the same for all kernels
    and precisions. The gradients are float32 tensors on the CPU, one for each parameter.
    """
    device, context = resolve_device(config.device, local_rank=0), ParallelContext.alone()
    model = build_model(config, seed=_SEED, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(_NOISE * torch.randn(parameter.shape, generator=generator))
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
    result = VariantResult(
        device=describe_device(device),
        losses=losses | {"loss": float(terms.loss.detach())},
        gradient_norm=float(norm),
        peak_memory_bytes=peak_memory_bytes(device),
    )
    return result, gradients


if __name__ == "__main__":
    main()
