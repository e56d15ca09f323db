"""ExecutionPlan: how a forward pass is executed, as opposed to what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from openfold_opt.kernels.interface import KernelConfig, KernelSet
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.compiled_parts import (
    CompiledPart,
    CompiledParts,
    Parameters,
    Result,
)
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
    compiled_parts: CompiledParts = field(default_factory=CompiledParts)
    """Parts of the model and the losses that torch.compile compiles."""

    def recomputes(self, index: int) -> bool:
        """Whether the block at this index of a stack is recomputed in the backward pass."""
        return index < self.num_recomputed_blocks

    def compiled(
        self, part: CompiledPart, function: Callable[Parameters, Result]
    ) -> Callable[Parameters, Result]:
        """Return a function or bound method of a part, compiled if the plan compiles the part.

        The function may start no collective and wait for none.
        """
        return self.compiled_parts.apply(part, function)

    def without_chunks(self) -> ExecutionPlan:
        """Return the same plan without chunks, for one of several groups of templates."""
        return replace(self, dap=self.dap.without_chunks())

    def with_chunks_of(self, shard_bytes: int) -> ExecutionPlan:
        """Return the same plan with as many chunks as the shard of a tensor is worth."""
        return replace(self, dap=self.dap.with_chunks_of(shard_bytes))

    @classmethod
    def reference(cls, *, num_recomputed_blocks: int = 0) -> ExecutionPlan:
        """Return a plan with the reference kernels on one device."""
        kernels = build_kernel_set(KernelConfig(), "cpu")
        return cls(
            kernels=kernels,
            dap=AxisGroup.single("dap"),
            num_recomputed_blocks=num_recomputed_blocks,
        )
