"""Whether a preset and its kernels can run on this machine, found out before anything is measured."""

from __future__ import annotations

import torch

from benchmark.errors import BenchmarkError
from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig


def device_for(config: RunConfig, *, kernels: str, precision: str | None = None) -> torch.device:
    """The device of this process on which the preset runs.

    Args:
        config: the preset.
        kernels: the implementation of all operations, one of IMPLEMENTATIONS.
        precision: instead of the preset's.

    Raises:
        BenchmarkError: there is no such device, or the kernels cannot run there.
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
