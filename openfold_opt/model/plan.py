"""ExecutionPlan: how a forward pass is carried out, as opposed to what it computes."""

from __future__ import annotations

from dataclasses import dataclass

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

    @classmethod
    def plain(cls, *, recompute: bool = False) -> ExecutionPlan:
        """Reference kernels in float32 on one device."""
        kernels = build_kernel_set(KernelConfig(), "cpu")
        return cls(kernels=kernels, dap=AxisGroup.single("dap"), recompute=recompute)
