"""The share of the accelerators' peak FLOP/s that training reaches."""

from __future__ import annotations

import re

FORWARD_TFLOP = 11.8
"""Of the matrix products in one pass of a closed-division sample (crop 256); see `perf counts`."""
MEAN_RECYCLING_ITERATIONS = 1.5
"""Each step has 0 to 3 recycling iterations with equal probability."""
STEP_TFLOP = (3 + MEAN_RECYCLING_ITERATIONS) * FORWARD_TFLOP
"""TFLOP of a step per sample: forward, backward (twice as much), and recycling iterations.

Recomputation is not included.
"""

PEAK_TFLOP_PER_SECOND = (
    # Accelerator name in the system description, and dense peak by precision, from NVIDIA's data
    # sheets (without sparsity). The first name that matches counts.
    (re.compile(r"H100\W+PCIE", re.IGNORECASE), {"bf16": 756.0, "tf32": 378.0}),
    (re.compile(r"G?H200|H100", re.IGNORECASE), {"bf16": 989.0, "tf32": 495.0}),
    (re.compile(r"A100", re.IGNORECASE), {"bf16": 312.0, "tf32": 156.0}),
)


def peak_tflop_per_second(accelerator: str | None, precision: str | None) -> float | None:
    """Return the dense peak of one accelerator, or None if its name or the precision is unknown."""
    for pattern, peaks in PEAK_TFLOP_PER_SECOND:
        if accelerator and pattern.search(accelerator):
            return peaks.get(precision or "")
    return None


def share_of_peak(samples_per_second: float, *, num_accelerators: int, peak: float) -> float:
    """Return the share of peak, 0 to 1.

    num_accelerators: all accelerators of the run, including those that only evaluate. peak: TFLOP/s
    of one accelerator.
    """
    return samples_per_second * STEP_TFLOP / (num_accelerators * peak)
