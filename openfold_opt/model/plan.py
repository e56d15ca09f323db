"""ExecutionPlan: how a forward pass is executed, as opposed to what it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from openfold_opt.kernels.interface import KernelConfig, KernelSet
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.parallel.axis import AxisGroup

ALL_BLOCKS = 2**31
"""A value of num_recomputed_blocks that recomputes all blocks of every stack."""


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """Execution options, passed to every forward. Training and evaluation have one plan each."""

    kernels: KernelSet
    dap: AxisGroup
    """Axis of dynamic axial parallelism, along which MSA and pair representation are sharded
    by rows or columns."""
    num_recomputed_blocks: int = 0
    """Number of blocks at the start of each stack that keep only their inputs and are recomputed
    in the backward pass."""

    def recomputes(self, index: int) -> bool:
        """Whether the block at this index of a stack is recomputed in the backward pass."""
        return index < self.num_recomputed_blocks

    def without_chunks(self) -> ExecutionPlan:
        """Return the same plan without chunks, for one of several groups of templates."""
        return replace(self, dap=self.dap.without_chunks())

    @classmethod
    def reference(cls, *, num_recomputed_blocks: int = 0) -> ExecutionPlan:
        """Return a plan with the reference kernels on one device."""
        kernels = build_kernel_set(KernelConfig(), "cpu")
        return cls(
            kernels=kernels,
            dap=AxisGroup.single("dap"),
            num_recomputed_blocks=num_recomputed_blocks,
        )
