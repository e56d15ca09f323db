"""Share of the accelerators' peak that training reaches."""

from __future__ import annotations

import re

FORWARD_TFLOP = 11.8
"""Matrix work of one forward pass of a sample of the closed division (crop 256), counted by `perf counts`."""
MEAN_EXTRA_PASSES = 1.5
STEP_TFLOP = (3 + MEAN_EXTRA_PASSES) * FORWARD_TFLOP
"""A sample's step: forward, backward (twice that), and on average 1.5 passes without gradient; computing again to save memory does not count."""

PEAK_TFLOP_PER_SECOND = (
    # name in the description of the system, dense peak by precision; data sheets of NVIDIA (without sparsity)
    (re.compile(r"H100\W+PCIE", re.IGNORECASE), {"bf16": 756.0, "tf32": 378.0}),
    (re.compile(r"G?H200|H100", re.IGNORECASE), {"bf16": 989.0, "tf32": 495.0}),
    (re.compile(r"A100", re.IGNORECASE), {"bf16": 312.0, "tf32": 156.0}),
)


def peak_tflop_per_second(accelerator: str | None, precision: str | None) -> float | None:
    """Dense peak of one accelerator; None if name or precision is unknown."""
    for pattern, peaks in PEAK_TFLOP_PER_SECOND:
        if accelerator and pattern.search(accelerator):
            return peaks.get(precision or "")
    return None


def share_of_peak(samples_per_second: float, *, num_accelerators: int, peak: float) -> float:
    """0 to 1; num_accelerators are all that the job holds, those that only evaluate too."""
    return samples_per_second * STEP_TFLOP / (num_accelerators * peak)
