"""`perf agreement`: one training step with fused kernels in bf16 against the same step with
reference kernels.

The rule is that of kernel tests: measured against reference kernels in float32, the error of the
fused kernels in bf16 may be at most twice the error of the reference kernels in bf16.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import BenchmarkError
from benchmark.perf.can_run import device_for
from benchmark.perf.precision import gradient_errors
from benchmark.perf.probe import run_probe
from benchmark.perf.timing_stats import table
from benchmark.presets import build_preset, preset_names
from openfold_opt.kernels.select import IMPLEMENTATIONS

FUSED, LOW, TRUTH = "fused bf16", "reference bf16", "reference fp32"
FACTOR = 2.0
FLOOR = 2.0**-8
"""Errors below this are a rounding of bf16 and always allowed."""
PROBE = "benchmark.perf.agreement_probe"
_MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="middle",
        choices=preset_names(),
        help="sizes and device (default: middle)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=IMPLEMENTATIONS,
        help="the fused kernels (default: auto, those for the device)",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=1,
        metavar="K",
        help="recycling passes without gradient (default: 1)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of PyTorch on a CPU (default: 1)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the three variants, the fused one first, each in its own process.

    Returns:
        Losses, gradient norm and peak memory by variant; by quantity the errors against reference
        kernels in float32, and the error that is allowed. A variant that fails, or an error above
        what is allowed, is a line of "failures".
    """
    if args.threads < 1 or args.passes < 0:
        raise BenchmarkError("--threads must be at least 1, --passes at least 0")
    device_for(build_preset(args.preset), kernels=args.kernels, precision="bf16")
    metrics: dict[str, Any] = {
        name: getattr(args, name) for name in ("preset", "kernels", "passes")
    }
    metrics |= {"variants": {}, "errors": {}, "failures": []}
    gradients: dict[str, dict[str, Tensor]] = {}
    with tempfile.TemporaryDirectory(prefix="perf-agreement-") as folder:
        for name, kernels, precision in (
            (FUSED, args.kernels, "bf16"),
            (LOW, "reference", "bf16"),
            (TRUTH, "reference", "fp32"),
        ):
            file = Path(folder, f"{name.replace(' ', '_')}.pt")
            settings = {"preset": args.preset, "kernels": kernels, "precision": precision}
            settings |= {"passes": args.passes, "threads": args.threads, "gradients": str(file)}
            try:
                for found in run_probe(PROBE, settings, name=f"the step with {name}"):
                    metrics["variants"][name] = found
            except BenchmarkError as error:
                metrics["failures"].append(str(error))
            else:
                gradients[name] = torch.load(file, weights_only=True, mmap=True)
            args.record.save(metrics)
        if len(gradients) == 3:
            metrics["errors"] = compare(metrics["variants"], gradients)
            metrics["failures"] += excesses(metrics["errors"])
    return metrics


def compare(
    variants: dict[str, dict[str, Any]], gradients: dict[str, dict[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """Errors against the truth by quantity: {"fused", "low", "allowed"}, all relative.

    Args:
        variants: what the probe prints, by FUSED, LOW and TRUTH.
        gradients: the gradient of every parameter, by the same names.

    Returns:
        "losses" is the root mean square over the loss terms. "gradient of X" is |g - truth| /
        |truth| over the parameters of a part of the model. "gradient norm" may differ by as much as
        the gradients may, as | |g| - |truth| | <= |g - truth|.
    """
    losses = {
        name: _loss_error(variants[name]["losses"], variants[TRUTH]["losses"])
        for name in (FUSED, LOW)
    }
    errors = {"losses": _row(losses[FUSED], losses[LOW])}
    parts = gradient_errors(gradients, truth=TRUTH)
    norm = variants[TRUTH]["gradient_norm"]
    norms = {name: abs(variants[name]["gradient_norm"] - norm) / norm for name in (FUSED, LOW)}
    errors["gradient norm"] = _row(norms[FUSED], norms[LOW], baseline=parts["all"][LOW])
    for part, found in parts.items():
        errors[f"gradient of {part}"] = _row(found[FUSED], found[LOW])
    return errors


def _loss_error(losses: dict[str, float], truth: dict[str, float]) -> float:
    squares = [
        ((losses[name] - value) / max(abs(value), 1e-12)) ** 2 for name, value in truth.items()
    ]
    return math.sqrt(sum(squares) / len(squares))


def _row(fused: float, low: float, *, baseline: float | None = None) -> dict[str, float]:
    allowed = max(FACTOR * (low if baseline is None else baseline), FLOOR)
    return {"fused": fused, "low": low, "allowed": allowed}


def excesses(errors: dict[str, dict[str, float]]) -> list[str]:
    """A line for every quantity whose error is above what is allowed, or is not a number."""
    return [
        f"{name}: the error with fused kernels is {row['fused']:.2e}, "
        f"allowed are {row['allowed']:.2e}"
        for name, row in errors.items()
        if not row["fused"] <= row["allowed"]
    ]


def report(metrics: dict[str, Any]) -> str:
    """Figures by variant, then errors by quantity, then the verdict."""
    variants = metrics["variants"]
    parts = [
        "{preset}, one step with {passes} passes without gradient, fused is {kernels}".format(
            **metrics
        )
    ]
    if variants:
        names = list(next(iter(variants.values()))["losses"])
        rows = [
            [name, *(f"{found['losses'][name]:.5f}" for found in variants.values())]
            for name in names
        ]
        rows.append(
            ["gradient norm", *(f"{found['gradient_norm']:.5g}" for found in variants.values())]
        )
        peaks = [f"{found['peak_memory_bytes'] / _MEBIBYTE:.0f}" for found in variants.values()]
        rows.append(["peak memory, MiB", *peaks])
        parts.append(table(rows, header=["", *variants]))
    if metrics["errors"]:
        rows = [
            [name, *(f"{row[column]:.1e}" for column in ("fused", "low", "allowed"))]
            for name, row in metrics["errors"].items()
        ]
        parts.append(table(rows, header=["error against reference fp32", FUSED, LOW, "allowed"]))
    verdict = (
        "THE STEPS DO NOT AGREE, or could not be compared"
        if metrics["failures"]
        else "the steps agree"
    )
    return "\n\n".join([*parts, verdict])
