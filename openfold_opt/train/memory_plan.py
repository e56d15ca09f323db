"""Find the smallest number of recomputed blocks with which a training step fits into memory.

A step needs the tensors that autograd saves, and the largest workspace of an operation. The saved
tensors are found by a forward pass on PyTorch's device "meta", which takes seconds and no memory;
every Evoformer block that is not recomputed adds the same amount. The workspaces are those of the
table of operations.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.operations import OPERATIONS, residual_attention_workspace
from openfold_opt.kernels.reference.self_attention import SelfAttentionShapes
from openfold_opt.kernels.select import (
    build_kernel_set,
    has_residual_attention,
    resolve_auto,
)
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import graph_memory_bytes
from openfold_opt.train.operation_shapes import operations_of_step
from openfold_opt.train.precision import activation_dtype, meta_model, meta_training_model
from openfold_opt.train.synthetic_features import meta_batch

USABLE_SHARE = 0.9
"""Fraction of the free memory, after parameters and moments, that a step may take.

The rest is for fragmentation, buffers of collectives and libraries, and tensors of a block that are
neither saved nor within an operation. The value is an assumption: no step has run on a GPU.
"""

_FLAT_TENSORS = 6
"""Parameters, gradients, two moments, the average, and rounded copies; at most float32 each."""


def plan_recomputation(config: RunConfig, device: torch.device) -> int:
    """Return ExecutionPlan.num_recomputed_blocks for a run whose model is not on the device yet.

    Raises ValueError if recompute="auto" and a step does not fit with all blocks recomputed.
    """
    if config.recompute != "auto":
        return ALL_BLOCKS if config.recompute else 0
    kernels = resolve_auto(config.kernels, device)
    memory = StepMemory(config, kernels, has_graphs=config.cuda_graphs)
    return memory.fewest_recomputed_blocks(free_memory_bytes(device), where=str(device))


@dataclass(frozen=True, kw_only=True)
class LargestWorkspace:
    """The operation of a micro-batch that allocates most beyond its arguments and results."""

    operation: str
    where: str
    """Location in the model."""
    implementation: str
    bytes: int


class StepMemory:
    """Bytes of a training step on each DAP rank."""

    def __init__(self, config: RunConfig, kernels: KernelConfig, *, has_graphs: bool) -> None:
        """Prepare the sums. kernels: a resolved KernelConfig."""
        self._config, self._kernels, self._has_graphs = config, kernels, has_graphs
        self._dap_size = config.parallel.dap_size
        self.saved = functools.cache(self._saved)
        """Number of recomputed blocks -> bytes that are saved for the backward pass."""

    def usable_bytes(self, free: float) -> float:
        """Return the bytes for a step, of those that are free before the model is created."""
        return USABLE_SHARE * (free - state_bytes(self._config) - self.graphs)

    def needed(self, num_recomputed_blocks: int) -> int:
        """Return the largest sum of saved tensors and workspace at one time.

        The first blocks are recomputed. At the start of the backward pass all saved tensors exist.
        In the backward pass of a recomputed block, those of the other blocks are freed, but the
        block saves its tensors again; one block of each stack is an upper bound.
        """
        bytes_saved = self.saved(num_recomputed_blocks)
        if num_recomputed_blocks:
            num_blocks = self._config.model.evoformer_stack.num_blocks
            one_block = self.saved(0) - self.saved(1)
            bytes_saved = max(bytes_saved, self.saved(num_blocks) + one_block)
        return bytes_saved + self.largest_workspace.bytes

    def fewest_recomputed_blocks(self, free_bytes: float, *, where: str) -> int:
        """Return the smallest number of recomputed blocks with which a step fits.

        free_bytes: free memory before the model is created. where: name of the device.

        Raises ValueError if a step does not fit with all blocks recomputed.
        """
        free, model = self.usable_bytes(free_bytes), self._config.model
        num_blocks = model.evoformer_stack.num_blocks
        # The sum is linear once all blocks of the shorter stacks are recomputed: each further
        # Evoformer block saves the same number of bytes.
        linear_from = min(
            max(model.extra_msa_stack.num_blocks, model.template_pair_stack.num_blocks),
            num_blocks,
        )
        for number in range(linear_from + 1):
            if self.needed(number) <= free:
                return number
        if self.needed(num_blocks) > free:
            largest = self.largest_workspace
            raise ValueError(
                f"a step needs {self.needed(num_blocks) / 2**30:.1f} GiB even if all blocks are "
                f"recomputed, of which the {largest.implementation} kernel {largest.operation} "
                f"({largest.where}) needs {largest.bytes / 2**30:.1f} GiB as workspace, but only "
                f"{free / 2**30:.1f} GiB are free for it on {where}, after "
                f"{self.graphs / 2**30:.1f} GiB of CUDA graphs; reduce local_batch_size or the "
                "sizes of the data"
            )
        block_bytes = (self.saved(linear_from) - self.saved(num_blocks)) / (
            num_blocks - linear_from
        )
        excess = self.saved(linear_from) + self.largest_workspace.bytes - free
        return min(num_blocks, linear_from + math.ceil(excess / block_bytes))

    @functools.cached_property
    def graphs(self) -> int:
        """Bytes of CUDA graphs; 0 without them.

        Graphs also have a memory pool. It holds the activations, which are counted either way.
        """
        return graph_memory_bytes(self._config, self._kernels) if self._has_graphs else 0

    @functools.cached_property
    def largest_workspace(self) -> LargestWorkspace:
        """Largest workspace in either pass, of the operations that have a gradient.

        The others run when few tensors are saved: at the start of a stack, or after the backward
        pass.
        """
        config, names = self._config, self._kernels.implementations
        dtype = activation_dtype(config.precision)
        is_residual = self._dap_size == 1 and has_residual_attention(self._kernels)
        found = []
        for place in operations_of_step(config, dap_size=self._dap_size):
            row, implementation = OPERATIONS[place.operation], names[place.operation]
            if row.has_gradient:
                if is_residual and isinstance(place.shapes, SelfAttentionShapes):
                    workspace = residual_attention_workspace(place.shapes, dtype)
                else:
                    workspace = row.workspace(place.shapes, dtype, implementation=implementation)
                found.append(
                    LargestWorkspace(
                        operation=place.operation,
                        where=place.where,
                        implementation=implementation,
                        bytes=workspace.training,
                    )
                )
        return max(found, key=lambda each: each.bytes)

    def _saved(self, number: int) -> int:
        return saved_bytes(
            self._config, self._kernels, num_recomputed_blocks=number, dap_size=self._dap_size
        )


def saved_bytes(
    config: RunConfig, kernel_config: KernelConfig, *, num_recomputed_blocks: int, dap_size: int = 1
) -> int:
    """Return the bytes that the forward pass and loss of a micro-batch save on each DAP rank."""
    model, _ = meta_training_model(config.model, config.precision)
    with torch.device("meta"):
        kernels = build_kernel_set(kernel_config, "meta", config.model.kernel_shapes())
        plan = ExecutionPlan(
            kernels=kernels,
            dap=counted_axis(config.parallel, size=dap_size),
            num_recomputed_blocks=num_recomputed_blocks,
        )
        batch = meta_batch(config.data, batch_size=config.local_batch_size, num_passes=1)

        def forward() -> None:
            outputs = model(batch, plan, num_recycling_iterations=0, dropout=None)
            AlphaFoldLoss(config.loss)(outputs, batch.at_pass(0))

        return count_saved_bytes(forward, model)


def count_saved_bytes(forward: Callable[[], object], module: nn.Module) -> int:
    """Return the bytes of all tensors that a forward pass saves for the backward pass.

    The parameters of the module are not counted.
    """
    parameters = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        # Keep the tensor alive, so that no other storage gets the same address.
        kept.setdefault(x.untyped_storage()._cdata, x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        forward()
    return sum(
        x.untyped_storage().nbytes() for address, x in kept.items() if address not in parameters
    )


def free_memory_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or of this machine if the device is a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def state_bytes(config: RunConfig) -> int:
    """Return the bytes of parameters, gradients and the state of the optimizer."""
    model = meta_model(config.model, config.precision)
    # Clipping per sample has a sum of gradients in addition.
    num_tensors = _FLAT_TENSORS + (config.optimizer.clip_per == "sample")
    return num_tensors * 4 * sum(parameter.numel() for parameter in model.parameters())
