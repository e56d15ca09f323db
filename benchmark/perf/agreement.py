"""`perf agreement`: compare a training step with fused bf16 kernels with reference kernels.

The tolerance is that of the kernel tests: measured against reference kernels in float32, the error
of the fused kernels in bf16 may be at most twice the error of the reference kernels in bf16.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.command_line import BenchmarkError
from benchmark.perf.precision import gradient_errors
from benchmark.perf.tools.can_run import device_for
from benchmark.perf.tools.probe import run_probe
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset, preset_names
from openfold_opt.kernels.select import IMPLEMENTATIONS

FUSED, LOW, TRUTH = "fused bf16", "reference bf16", "reference fp32"
FACTOR = 2.0
FLOOR = 2.0**-8
"""Relative errors below this are within one bf16 rounding and always allowed."""
PROBE = "benchmark.perf.subprocesses.agreement_probe"
_MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="middle",
        choices=preset_names(),
        help="preset for sizes and device (default: middle)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=IMPLEMENTATIONS,
        help="fused kernels to compare (default: auto, chosen for the device)",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=1,
        metavar="K",
        help="number of recycling iterations (default: 1)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="PyTorch CPU threads (default: 1)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the three variants, the fused one first, each in its own process.

    Returns:
        "variants": losses, gradient norm and peak memory of each variant. "errors": for each
        quantity, the errors against reference kernels in float32, and the tolerance. "failures":
        one line for each variant that failed and each error above its tolerance.
    """
    if args.threads < 1 or args.passes < 0:
        raise BenchmarkError(
            f"--threads {args.threads} --passes {args.passes}: expected at least 1 and 0"
        )
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
                for result in run_probe(PROBE, settings, name=f"the step with {name}"):
                    metrics["variants"][name] = result
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
    """Compute the relative errors {"fused", "low", "allowed"} of each quantity.

    Args:
        variants: What the probe prints, keyed by FUSED, LOW and TRUTH.
        gradients: The gradient of every parameter, with the same keys.

    Returns:
        "losses" is the root mean square over the loss terms. "gradient of X" is |g - truth| /
        |truth| over the parameters of a part of the model. "gradient norm" has the tolerance of the
        gradients, because | |g| - |truth| | <= |g - truth|.
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
    for part, part_errors in parts.items():
        errors[f"gradient of {part}"] = _row(part_errors[FUSED], part_errors[LOW])
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
    """Return a line for every quantity whose error is NaN or above its tolerance."""
    return [
        f"{name}: the error with fused kernels is {row['fused']:.2e}, expected at most "
        f"{row['allowed']:.2e}"
        for name, row in errors.items()
        if not row["fused"] <= row["allowed"]
    ]


def report(metrics: dict[str, Any]) -> str:
    """Format the metrics of each variant, the errors of each quantity, and the result."""
    variants = metrics["variants"]
    parts = [
        "{preset}, one step with {passes} recycling iterations, fused kernels: {kernels}".format(
            **metrics
        )
    ]
    if variants:
        names = list(next(iter(variants.values()))["losses"])
        rows = [
            [name, *(f"{variant['losses'][name]:.5f}" for variant in variants.values())]
            for name in names
        ]
        rows.append(
            ["gradient norm", *(f"{variant['gradient_norm']:.5g}" for variant in variants.values())]
        )
        peaks = [f"{variant['peak_memory_bytes'] / _MEBIBYTE:.0f}" for variant in variants.values()]
        rows.append(["peak memory, MiB", *peaks])
        parts.append(table(rows, header=["", *variants]))
    if metrics["errors"]:
        rows = [
            [name, *(f"{row[column]:.1e}" for column in ("fused", "low", "allowed"))]
            for name, row in metrics["errors"].items()
        ]
        parts.append(table(rows, header=["error against reference fp32", FUSED, LOW, "allowed"]))
    result = (
        "THE STEPS DO NOT AGREE, or could not be compared"
        if metrics["failures"]
        else "the steps agree"
    )
    return "\n\n".join([*parts, result])
