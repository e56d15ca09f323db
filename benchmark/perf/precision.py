"""`perf precision`: measure the error of bf16 losses and gradients against float32.

Compares reference and fused kernels in both precisions with reference kernels in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.can_run import device_for
from benchmark.perf.tools.options import add_count, add_preset, add_threads
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_plans, build_train_step, resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.lr_schedule import learning_rate
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.step import MicroBatch, StepNumbers, TrainStep
from openfold_opt.train.synthetic_features import synthetic_batch

VARIANTS = (("reference", "fp32"), ("reference", "bf16"), ("auto", "fp32"), ("auto", "bf16"))
"""(kernels, precision). "auto" selects fused kernels if the device supports them."""
TRUTH = "reference fp32"


@dataclass(frozen=True, kw_only=True)
class PrecisionMetrics:
    """Losses and errors of the variants, which are named "kernels precision"."""

    preset: str
    steps: int
    """float32 training steps before the comparison."""
    losses: dict[str, dict[str, float]]
    """Variant -> loss terms, and "loss", their weighted sum."""
    gradients: dict[str, dict[str, float]]
    """Part of the model, or "all" -> variant -> relative error of its gradients."""


METRICS = PrecisionMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_preset(parser, default="middle", what="preset for sizes")
    add_count(
        parser,
        "--steps",
        default=5,
        what="float32 training steps before the comparison, so that no weights are zero",
    )
    add_threads(parser)


def measure(args: argparse.Namespace) -> PrecisionMetrics:
    """Train in float32, then compute losses and gradients of one batch with every variant."""
    if min(args.steps, args.threads) < 1:
        raise BenchmarkError("--steps and --threads must be at least 1")
    torch.set_num_threads(args.threads)
    config = build_preset(args.preset)
    device = device_for(config, kernels="auto", precision="bf16")
    features = synthetic_batch(config.data, batch_size=config.local_batch_size, num_passes=1)
    slots = torch.arange(config.local_batch_size, device=device)
    batch = MicroBatch(
        features=FeatureBatch.from_features(features).to(device),
        slots=slots,
        sample_ids=("synthetic",),
    )
    weights = _trained(config, batch, args.steps)
    losses, gradients = {}, {}
    for kernels, precision in VARIANTS:
        name = f"{kernels} {precision}"
        losses[name], gradients[name] = _gradients(config, kernels, precision, weights, batch)
    errors = gradient_errors(gradients, truth=TRUTH)
    return PrecisionMetrics(preset=args.preset, steps=args.steps, losses=losses, gradients=errors)


def _step(config: RunConfig, kernels: str, precision: str) -> TrainStep:
    config = dataclasses.replace(
        config, kernels=KernelConfig.all(kernels), precision=precision, recompute=False
    )
    device, context = resolve_device(config.device, local_rank=0), ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    return build_train_step(config, model, plan=plan, context=context, seed=1)


def _trained(config: RunConfig, batch: MicroBatch, steps: int) -> Tensor:
    step = _step(config, *VARIANTS[0])
    with matmul_precision("fp32"):
        for number in range(1, steps + 1):
            rate = learning_rate(config.schedule, number)
            step.run([batch], step=number, learning_rate=rate, num_recycling_iterations=0).read()
    return step.buffer.values.clone()


def _gradients(
    config: RunConfig, kernels: str, precision: str, weights: Tensor, batch: MicroBatch
) -> tuple[dict[str, float], dict[str, Tensor]]:
    step = _step(config, kernels, precision)
    step.buffer.values.copy_(weights)
    step.buffer.refresh_compute_copy()
    with matmul_precision(precision):
        terms = step.forward_backward(
            batch,
            StepNumbers(step=1, learning_rate=0.0, dropout_seed=step.dropout_seed),
            num_recycling_iterations=0,
        )
    losses = {name: float(value.detach().mean()) for name, value in terms.terms.items()} | {
        "loss": float(terms.loss.detach())
    }
    return losses, {
        name: gradient.clone()
        for name, gradient in step.buffer.views(step.buffer.gradients).items()
    }


def gradient_errors(
    gradients: dict[str, dict[str, Tensor]], *, truth: str
) -> dict[str, dict[str, float]]:
    """Compute relative errors of gradients by part of the model.

    Args:
        gradients: Variant -> parameter -> gradient.
        truth: The variant to compare the others with.

    Returns:
        Part of the model, or "all" -> variant -> |g - truth| / |truth| over its parameters.
    """
    others = [name for name in gradients if name != truth]
    expected = gradients[truth]
    parts: dict[str, list[str]] = {"all": list(expected)}
    for name in expected:
        parts.setdefault(name.partition(".")[0], []).append(name)
    return {
        part: {other: _relative_error(gradients[other], expected, names) for other in others}
        for part, names in parts.items()
    }


def _relative_error(found: dict[str, Tensor], truth: dict[str, Tensor], names: list[str]) -> float:
    actual, expected = (
        torch.cat([gradients[name].flatten() for name in names]) for gradients in (found, truth)
    )
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-30))


def report(metrics: PrecisionMetrics) -> str:
    """Format the relative errors of the losses, then of the gradients."""
    truth = metrics.losses[TRUTH]
    others = [name for name in metrics.losses if name != TRUTH]
    rows = [
        [
            name,
            f"{value:.5f}",
            *(
                f"{abs(metrics.losses[other][name] - value) / max(abs(value), 1e-12):.1e}"
                for other in others
            ),
        ]
        for name, value in truth.items()
    ]
    gradients = [
        [part, "", *(f"{found[other]:.1e}" for other in others)]
        for part, found in metrics.gradients.items()
    ]
    return "\n\n".join(
        [
            f"{metrics.preset} after {metrics.steps} steps on synthetic features: relative "
            "errors against reference kernels in float32",
            table(rows, header=["loss", "float32", *others]),
            table(gradients, header=["gradient of", "", *others]),
        ]
    )


def headline(metrics: PrecisionMetrics) -> str:
    """Summarize the errors of all gradients."""
    errors = [f"{name} {value:.1e}" for name, value in metrics.gradients["all"].items()]
    return f"{metrics.preset}: relative error of all gradients against float32: {', '.join(errors)}"
