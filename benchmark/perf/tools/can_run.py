"""Check that a preset and its kernels can run on this machine before anything is measured."""

from __future__ import annotations

import torch

from benchmark.command_line import BenchmarkError
from openfold_opt.kernels.select import KernelConfig, build_kernel_set
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
