"""Replace every "auto" in a configuration by its meaning on this machine, and describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import resolve_auto
from openfold_opt.loader.device_prefetcher import resolve_prefetch
from openfold_opt.train.config import RunConfig


def resolve_config(config: RunConfig, device: torch.device) -> RunConfig:
    """Return the configuration with the device, kernels and prefetcher that the run uses.

    Only `recompute` may still be "auto": the ExecutionPlan of training has the number of blocks.
    """
    return replace(
        config,
        device="cuda" if device.type == "cuda" else "cpu",
        kernels=resolve_auto(config.kernels, device),
        loader=replace(config.loader, prefetch=resolve_prefetch(config.loader.prefetch, device)),
    )


def count_recomputed_blocks(config: RunConfig, num_recomputed_blocks: int) -> dict[str, int]:
    """Return, for each stack, the number of blocks that the backward pass recomputes.

    num_recomputed_blocks: from the ExecutionPlan, which has one number for all stacks.
    """
    names = ["extra_msa_stack", "evoformer_stack"]
    if config.model.has_templates:
        names.insert(0, "template_pair_stack")
    sizes = {name: getattr(config.model, name).num_blocks for name in names}
    return {name: min(num_recomputed_blocks, size) for name, size in sizes.items()}


def describe_resolved(
    config: RunConfig,
    *,
    recomputed_blocks: Mapping[str, int],
    number_of_ranks: int,
    global_batch_size: int,
) -> str:
    """Return a line that describes a resolved configuration."""
    parallel = config.parallel
    compiled = f"compiled parts {', '.join(config.compiled_parts)}, " * bool(config.compiled_parts)
    blocks = [f"{number} of {name}" for name, number in recomputed_blocks.items()]
    data_parallel_size = (number_of_ranks - parallel.num_evaluation_ranks) // parallel.dap_size
    return (
        f"resolved: device {config.device}, precision {config.precision}, "
        f"kernels {_describe_kernels(config.kernels)}, recomputed blocks {', '.join(blocks)}, "
        f"{compiled}"
        f"global batch {global_batch_size} = {data_parallel_size} data-parallel x "
        f"{config.local_batch_size} local x {config.accumulation} accumulated, "
        f"DAP {parallel.dap_size}, world size {number_of_ranks}"
    )


def _describe_kernels(kernels: KernelConfig) -> str:
    """Return the implementation of most operations, and what differs from it."""
    operations_of: dict[str, list[str]] = {}
    for operation, implementation in kernels.implementations.items():
        operations_of.setdefault(implementation, []).append(operation)
    usual = max(operations_of, key=lambda name: len(operations_of[name]))
    others = [
        f"{name} for {', '.join(operations)}"
        for name, operations in operations_of.items()
        if name != usual
    ]
    if not kernels.fused_attention:
        others.append("separate launches for attention")
    return usual + (f" (but {'; '.join(others)})" if others else "")
