"""Check that a preset, its kernels and Triton can be used before anything is measured."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from benchmark.command_line import BenchmarkError
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig


def device_for(config: RunConfig, *, kernels: str, precision: str | None = None) -> torch.device:
    """Return the device on which the preset runs in this process.

    Args:
        config: The preset.
        kernels: Implementation of all operations, one of IMPLEMENTATIONS.
        precision: Replaces the precision of the preset if given.

    Raises:
        BenchmarkError: There is no such device, or the kernels cannot run on it.
    """
    try:
        device = resolve_device(config.device, local_rank=0)
        build_kernel_set(
            KernelConfig.all(kernels),
            device,
            config.model.kernel_shapes(),
            precision=precision or config.precision,
        )
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    return device


def import_with_triton(module: str) -> ModuleType:
    """Import a module that needs Triton, which is not installed in CPU environments.

    Raises:
        BenchmarkError: Triton is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BenchmarkError(
            "this measurement needs Triton, which is not installed in this environment; "
            "./run_tests.sh --setup-only adds it to .venv; elsewhere run pip install "
            "triton==3.7.1"
        ) from error


def import_compiler() -> ModuleType:
    """Import openfold_opt.kernels.triton.compiling.

    Raises:
        BenchmarkError: Triton is not installed, or it is set to interpret kernels.
    """
    compiling = import_with_triton("openfold_opt.kernels.triton.compiling")
    if import_with_triton("openfold_opt.kernels.triton.launching").IS_INTERPRETED:
        raise BenchmarkError(
            "TRITON_INTERPRET is set: Triton interprets kernels and cannot compile them; unset it"
        )
    return compiling
