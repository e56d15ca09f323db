"""Numerical precision of a run: fp32, tf32 or bf16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch

from openfold_opt.kernels.interface import Precision
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.config import ModelConfig
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def low_precision_names(model: AlphaFold, precision: Precision) -> tuple[str, ...]:
    """Return the names of the parameters that the model uses in bfloat16.

    Their master values and the optimizer state are float32 (ParameterBuffer).
    """
    check_precision(precision)
    return model.trunk_linear_names() if precision == "bf16" else ()


def activation_dtype(precision: Precision) -> torch.dtype:
    """Return the dtype of activations and of the weights of linear layers in the trunk."""
    check_precision(precision)
    return torch.bfloat16 if precision == "bf16" else torch.float32


def meta_model(config: ModelConfig, precision: Precision) -> AlphaFold:
    """Return the model on device "meta", with the parameter dtypes of a precision.

    Tensors on this device have shapes and dtypes, but no memory.
    """
    with torch.device("meta"):
        model = AlphaFold(config, seed=None)
    parameters = dict(model.named_parameters())
    for name in low_precision_names(model, precision):
        parameters[name].data = parameters[name].data.bfloat16()
    return model


def meta_training_model(
    config: ModelConfig, precision: Precision
) -> tuple[AlphaFold, ParameterBuffer]:
    """Return the model of meta_model in the layout of training, and its parameter buffer.

    Layers that are applied together share joined parameters.
    """
    with torch.device("meta"):
        model = AlphaFold(config, seed=None)
    return model, ParameterBuffer(model, low_precision=low_precision_names(model, precision))


def check_precision(precision: str) -> None:
    """Raise ValueError if there is no such precision."""
    if precision not in PRECISIONS:
        raise ValueError(
            f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}"
        )


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Set the precision of matrix products on a GPU inside the context.

    float32 products may use TF32 unless the precision is fp32. bfloat16 products are summed in
    float32, also where cuBLAS splits a sum over several blocks of threads (docs/kernels.md).
    PyTorch has one such setting per process, so it is restored on exit.
    """
    check_precision(precision)
    matmul = torch.backends.cuda.matmul
    float32_before = torch.get_float32_matmul_precision()
    bfloat16_before = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(float32_before)
        matmul.allow_bf16_reduced_precision_reduction = bfloat16_before
