"""ExecutionPlan: how a forward pass is carried out, as opposed to what it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.parallel.axis import AxisGroup

ALL_BLOCKS = 2**31
"""More blocks than any stack has."""


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """Handed into every forward. Training and evaluation have one each; nothing is ever switched."""

    kernels: KernelSet
    dap: AxisGroup
    """Axis of dynamic axial parallelizm, over which rows or columns of MSA and pair representation are spread."""
    num_recomputed_blocks: int = 0
    """So many blocks at the beginning of each stack keep only their inputs, and are computed again in the backward pass."""

    def uncut(self) -> ExecutionPlan:
        """The same plan for one of several parts that travel by themselves, of which no pieces are made."""
        return replace(self, dap=self.dap.without_chunks())

    @classmethod
    def plain(cls, *, num_recomputed_blocks: int = 0) -> ExecutionPlan:
        """Reference kernels in float32 on one device."""
        kernels = build_kernel_set(KernelConfig(), "cpu")
        return cls(
            kernels=kernels,
            dap=AxisGroup.single("dap"),
            num_recomputed_blocks=num_recomputed_blocks,
        )
