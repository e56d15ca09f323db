"""The share of the accelerators' peak FLOP/s that training reaches."""

from __future__ import annotations

from openfold_opt.kernels.chips import find_chip

FORWARD_TFLOP = 11.8
"""Of the matrix products in one pass of a closed-division sample (crop 256); see `perf counts`."""
MEAN_RECYCLING_ITERATIONS = 1.5
"""Each step has 0 to 3 recycling iterations with equal probability."""
STEP_TFLOP = (3 + MEAN_RECYCLING_ITERATIONS) * FORWARD_TFLOP
"""TFLOP of a step per sample: forward, backward (twice as much), and recycling iterations.

Recomputation is not included.
"""

_PRECISIONS = ("bf16", "tf32")
"""Precisions whose products run on the tensor cores."""


def peak_tflop_per_second(accelerator: str | None, precision: str | None) -> float | None:
    """Return the dense peak of one accelerator, or None if its name or the precision is unknown."""
    chip = find_chip(accelerator or "")
    rate = chip.peak.of_precision(precision) if chip and precision in _PRECISIONS else None
    return None if rate is None else rate / 1e12


def share_of_peak(samples_per_second: float, *, num_accelerators: int, peak: float) -> float:
    """Return the share of peak, 0 to 1.

    num_accelerators: all accelerators of the run, including those that only evaluate. peak: TFLOP/s
    of one accelerator.
    """
    return samples_per_second * STEP_TFLOP / (num_accelerators * peak)
