"""A complete optimizer step of a configuration on PyTorch's device "meta", without memory."""

from __future__ import annotations

from dataclasses import replace

import torch

from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_train_step
from openfold_opt.train.config import RunConfig
from openfold_opt.train.step import MicroBatch, StepNumbers, StepTensors
from openfold_opt.train.synthetic_features import meta_batch

META = torch.device("meta")


def with_one_block_per_stack(config: RunConfig) -> RunConfig:
    """Return the configuration with one block in the stacks of many, at full width."""
    stacks = {
        name: replace(getattr(config.model, name), num_blocks=1)
        for name in ("template_pair_stack", "extra_msa_stack", "evoformer_stack")
    }
    return replace(config, model=replace(config.model, **stacks))


def run_meta_step(
    config: RunConfig, *, num_recycling_iterations: int, num_recomputed_blocks: int
) -> StepTensors:
    """Run recycling, forward and backward pass, clipping, Adam and the average for one sample.

    The step has one micro-batch. The other ranks of a DAP group do not exist: collectives have the
    right shapes only.
    """
    with META:
        model = AlphaFold(config.model, seed=None)
    size = config.parallel.dap_size
    plan = ExecutionPlan(
        kernels=build_kernel_set(config.kernels, META, config.model.kernel_shapes()),
        dap=AxisGroup.single("dap") if size == 1 else AxisGroup.fake("dap", size=size),
        num_recomputed_blocks=num_recomputed_blocks,
    )
    step = build_train_step(
        replace(config, accumulation=1), model, plan=plan, context=ParallelContext.alone(), seed=1
    )
    num_passes = num_recycling_iterations + 1
    batch = MicroBatch(
        features=meta_batch(config.data, batch_size=1, num_passes=num_passes),
        slots=torch.zeros(1, dtype=torch.int64, device=META),
        sample_ids=("none",),
    )
    integer = torch.zeros((), dtype=torch.int64, device=META)
    rate = torch.zeros((), dtype=torch.float64, device=META)
    numbers = StepNumbers(step=integer, learning_rate=rate, dropout_seed=integer)
    with META:
        return step.compute([batch], numbers, num_recycling_iterations=num_recycling_iterations)
