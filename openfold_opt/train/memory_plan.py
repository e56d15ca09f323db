"""Find the smallest number of recomputed blocks with which a training step fits into memory.

The plan uses the sizes of the tensors that autograd saves. They are found by a forward pass on
PyTorch's device "meta", which takes seconds and no memory. Every Evoformer block that is not
recomputed adds the same amount.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set, resolve_auto
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import graph_memory_bytes
from openfold_opt.train.precision import meta_model
from openfold_opt.train.synthetic_features import meta_batch

SHARE_FOR_ACTIVATIONS = 0.85
"""Fraction of the free memory, after parameters and moments, that saved tensors may take.

The rest is for temporary tensors within a block and for fragmentation.
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
    # Graphs also have a memory pool; it holds the activations, which are counted below either way.
    graphs = graph_memory_bytes(config, kernels) if config.cuda_graphs else 0
    free = SHARE_FOR_ACTIVATIONS * (free_memory_bytes(device) - state_bytes(config) - graphs)
    num_blocks = config.model.evoformer_stack.num_blocks
    saved = functools.cache(
        lambda number: saved_bytes(
            config, kernels, num_recomputed_blocks=number, dap_size=config.parallel.dap_size
        )
    )
    # `saved` is linear once all blocks of the shorter stacks are recomputed: each further Evoformer
    # block saves the same number of bytes.
    linear_from = min(
        max(config.model.extra_msa_stack.num_blocks, config.model.template_pair_stack.num_blocks),
        num_blocks,
    )
    for number in range(linear_from + 1):
        if saved(number) <= free:
            return number
    if saved(num_blocks) > free:
        raise ValueError(
            f"a step saves {saved(num_blocks) / 2**30:.1f} GiB even if all blocks are recomputed, "
            f"but only {free / 2**30:.1f} GiB are free for it on {device}, after "
            f"{graphs / 2**30:.1f} GiB of CUDA graphs; reduce local_batch_size or the sizes of "
            "the data"
        )
    block_bytes = (saved(linear_from) - saved(num_blocks)) / (num_blocks - linear_from)
    return min(num_blocks, linear_from + math.ceil((saved(linear_from) - free) / block_bytes))


def saved_bytes(
    config: RunConfig, kernel_config: KernelConfig, *, num_recomputed_blocks: int, dap_size: int = 1
) -> int:
    """Return the bytes that the forward pass and loss of a micro-batch save on each DAP rank."""
    model = meta_model(config.model, config.precision)
    with torch.device("meta"):
        kernels = build_kernel_set(kernel_config, "meta", config.model.kernel_shapes())
        plan = ExecutionPlan(
            kernels=kernels,
            dap=AxisGroup.fake("dap", size=dap_size),
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
    return _FLAT_TENSORS * 4 * sum(parameter.numel() for parameter in model.parameters())
