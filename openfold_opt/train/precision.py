"""What fp32, tf32 and bf16 mean for a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("fp32", "tf32", "bf16")


def compute_dtype(precision: str) -> torch.dtype:
    """Dtype of the trunk's matrix products; weights, structure module, heads and losses stay float32."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """While open, float32 matrix products may use TF32 unless the precision is fp32.

    The setting belongs to the process in PyTorch, so it is put back on exit.
    """
    compute_dtype(precision)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
