"""What fp32, tf32 and bf16 mean for a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from openfold_opt.model.alphafold import AlphaFold

PRECISIONS = ("fp32", "tf32", "bf16")


def low_precision_names(model: AlphaFold, precision: str) -> tuple[str, ...]:
    """Parameters that the model computes with in bfloat16; their values and the optimiser stay float32 (ParameterBuffer)."""
    check_precision(precision)
    return model.trunk_linear_names() if precision == "bf16" else ()


def check_precision(precision: str) -> None:
    """ValueError if there is no such precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """While open, float32 matrix products may use TF32 unless the precision is fp32.

    The setting belongs to the process in PyTorch, so it is put back on exit.
    """
    check_precision(precision)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
