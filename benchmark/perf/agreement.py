"""`perf agreement`: check a training step with fused bf16 kernels against reference kernels.

The tolerance is that of the kernel tests: measured against reference kernels in float32, the error
of the fused kernels in bf16 may be at most twice the error of the reference kernels in bf16.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmark.command_line import BenchmarkError
from benchmark.perf.precision import gradient_errors
from benchmark.perf.subprocesses.agreement_probe import AgreementSettings, VariantResult
from benchmark.perf.tools.can_run import device_for
from benchmark.perf.tools.options import add_count, add_kernels, add_preset, add_threads
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.probe import run_probe
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset

FUSED, LOW, TRUTH = "fused bf16", "reference bf16", "reference fp32"
"""The three variants of the step; LOW has low precision."""
FACTOR = 2.0
"""Largest accepted error of FUSED, relative to the error of LOW."""
FLOOR = 2.0**-8
"""Relative errors up to this are within one bf16 rounding and always accepted."""
PROBE = "benchmark.perf.subprocesses.agreement_probe"
_MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class QuantityErrors:
    """Relative errors of one quantity (see `compare`) against reference kernels in float32."""

    fused: float
    """Error of the fused kernels in bf16."""
    low: float
    """Error of the reference kernels in bf16."""
    allowed: float
    """Tolerance for `fused`."""


@dataclass(frozen=True, kw_only=True)
class AgreementMetrics:
    """Results of the three variants of a step, and their errors."""

    preset: str
    kernels: str
    passes: int
    """Number of recycling iterations."""
    variants: dict[str, VariantResult] = field(default_factory=dict)
    """Results keyed by FUSED, LOW and TRUTH."""
    errors: dict[str, QuantityErrors] = field(default_factory=dict)
    """Quantity -> errors; empty if a variant failed."""
    failures: list[str] = field(default_factory=list)
    """One line for each variant that failed and each error above its tolerance."""


METRICS = AgreementMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_preset(parser, default="middle", what="preset for sizes and device")
    add_kernels(parser, what="fused kernels to compare")
    add_count(parser, "--passes", default=1, what="number of recycling iterations")
    add_threads(parser)


def measure(args: argparse.Namespace) -> AgreementMetrics:
    """Run each variant in its own process, the fused one first, because it is likeliest to fail."""
    if args.threads < 1 or args.passes < 0:
        raise BenchmarkError(
            f"--threads {args.threads} --passes {args.passes}: expected at least 1 and 0"
        )
    device_for(build_preset(args.preset), kernels=args.kernels, precision="bf16")
    metrics = AgreementMetrics(preset=args.preset, kernels=args.kernels, passes=args.passes)
    gradients: dict[str, dict[str, Tensor]] = {}
    with tempfile.TemporaryDirectory(prefix="perf-agreement-") as folder:
        for name, kernels, precision in (
            (FUSED, args.kernels, "bf16"),
            (LOW, "reference", "bf16"),
            (TRUTH, "reference", "fp32"),
        ):
            file = Path(folder, f"{name.replace(' ', '_')}.pt")
            settings = AgreementSettings(
                preset=args.preset,
                kernels=kernels,
                precision=precision,
                passes=args.passes,
                threads=args.threads,
                gradients=str(file),
            )
            try:
                for result in run_probe(PROBE, settings, name=f"the step with {name}"):
                    metrics.variants[name] = from_json(VariantResult, result)
            except BenchmarkError as error:
                metrics.failures.append(str(error))
            else:
                gradients[name] = torch.load(file, weights_only=True, mmap=True)
            args.record.save(metrics)
        if len(gradients) == 3:
            metrics.errors.update(compare(metrics.variants, gradients))
            metrics.failures.extend(excesses(metrics.errors))
    return metrics


def compare(
    variants: dict[str, VariantResult], gradients: dict[str, dict[str, Tensor]]
) -> dict[str, QuantityErrors]:
    """Compute the relative errors of each quantity.

    Args:
        variants: Results of the probe, keyed by FUSED, LOW and TRUTH.
        gradients: The gradient of every parameter, with the same keys.

    Returns:
        "losses" is the root mean square over the loss terms. "gradient of X" is |g - truth| /
        |truth| over the parameters of a part of the model. "gradient norm" has the tolerance of the
        gradients, because | |g| - |truth| | <= |g - truth|.
    """
    losses = {
        name: _loss_error(variants[name].losses, variants[TRUTH].losses) for name in (FUSED, LOW)
    }
    errors = {"losses": _with_tolerance(losses[FUSED], losses[LOW])}
    parts = gradient_errors(gradients, truth=TRUTH)
    norm = variants[TRUTH].gradient_norm
    norms = {name: abs(variants[name].gradient_norm - norm) / norm for name in (FUSED, LOW)}
    errors["gradient norm"] = _with_tolerance(norms[FUSED], norms[LOW], baseline=parts["all"][LOW])
    for part, part_errors in parts.items():
        errors[f"gradient of {part}"] = _with_tolerance(part_errors[FUSED], part_errors[LOW])
    return errors


def _loss_error(losses: dict[str, float], truth: dict[str, float]) -> float:
    squares = [
        ((losses[name] - value) / max(abs(value), 1e-12)) ** 2 for name, value in truth.items()
    ]
    return math.sqrt(sum(squares) / len(squares))


def _with_tolerance(fused: float, low: float, *, baseline: float | None = None) -> QuantityErrors:
    """Add the tolerance, which is derived from `baseline`, by default `low`."""
    allowed = max(FACTOR * (low if baseline is None else baseline), FLOOR)
    return QuantityErrors(fused=fused, low=low, allowed=allowed)


def excesses(errors: dict[str, QuantityErrors]) -> list[str]:
    """Return a line for every quantity whose error is NaN or above its tolerance."""
    return [
        f"{name}: the error with fused kernels is {row.fused:.2e}, expected at most "
        f"{row.allowed:.2e}"
        for name, row in errors.items()
        if not row.fused <= row.allowed
    ]


def report(metrics: AgreementMetrics) -> str:
    """Format the results of each variant, the errors of each quantity, and the conclusion."""
    variants = metrics.variants
    parts = [
        f"{metrics.preset}, one step with {metrics.passes} recycling iterations, fused kernels: "
        f"{metrics.kernels}"
    ]
    if variants:
        rows = [
            [name, *(f"{variant.losses[name]:.5f}" for variant in variants.values())]
            for name in next(iter(variants.values())).losses
        ]
        norms = [f"{variant.gradient_norm:.5g}" for variant in variants.values()]
        peaks = [f"{variant.peak_memory_bytes / _MEBIBYTE:.0f}" for variant in variants.values()]
        rows += [["gradient norm", *norms], ["peak memory, MiB", *peaks]]
        parts.append(table(rows, header=["", *variants]))
    if metrics.errors:
        rows = [
            [name, *(f"{error:.1e}" for error in (row.fused, row.low, row.allowed))]
            for name, row in metrics.errors.items()
        ]
        parts.append(table(rows, header=["error against reference fp32", FUSED, LOW, "allowed"]))
    result = (
        "THE STEPS DO NOT AGREE, or could not be compared"
        if metrics.failures
        else "the steps agree"
    )
    return "\n\n".join([*parts, result])


def headline(metrics: AgreementMetrics) -> str:
    """Summarize the errors of all gradients."""
    errors = metrics.errors["gradient of all"]
    result = "the steps do not agree" if metrics.failures else "the steps agree"
    return (
        f"{metrics.preset}: relative error of the gradients in bf16 "
        f"with fused kernels {errors.fused:.1e}, with reference kernels {errors.low:.1e}; "
        f"{result}"
    )
