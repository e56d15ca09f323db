"""ExecutionPlan: how a forward pass is carried out, as opposed to what it computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.parallel.axis import AxisGroup


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """Handed into every forward. Training and evaluation have one each; nothing is ever switched."""

    kernels: KernelSet
    dap: AxisGroup
    """Axis of dynamic axial parallelism, over which rows or columns of MSA and pair representation are spread."""
    recompute: bool = False
    """Blocks of the stacks keep only their inputs, and are computed again in the backward pass."""
    compute_dtype: torch.dtype = torch.float32
    """torch.bfloat16: the trunk runs under autocast; structure module, heads and losses stay in float32."""

    def __post_init__(self) -> None:
        if self.compute_dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"compute_dtype is {self.compute_dtype}; expected torch.float32 or torch.bfloat16")

    @classmethod
    def plain(cls, *, recompute: bool = False) -> ExecutionPlan:
        """Reference kernels in float32 on one device."""
        kernels = build_kernel_set(KernelConfig(), "cpu")
        return cls(kernels=kernels, dap=AxisGroup.single("dap"), recompute=recompute)
