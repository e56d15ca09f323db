"""An Evoformer stack with the sizes of the benchmark on device "meta", without values."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.evoformer_block import EvoformerStackConfig
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.linear import Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup

NUM_SEQ, NUM_RES = 128, 256


def benchmark_stack(num_blocks: int) -> nn.Module:
    """Build the Evoformer stack on device meta with bfloat16 linear layers, as in training."""
    with torch.device("meta"):
        stack = EvoformerStack(
            EvoformerStackConfig(num_blocks=num_blocks), c_m=256, c_z=128, c_s=384
        )
    for module in stack.modules():
        if isinstance(module, Linear):
            module.to(torch.bfloat16)
    return stack


def run_stack(stack: nn.Module, dap: AxisGroup, *, kernels: str) -> tuple[torch.Tensor, ...]:
    """Run the stack on the shards of one rank and return m and z.

    The launches of attention are separate, as in a DAP group, for any size of `dap`.
    """
    config = dataclasses.replace(KernelConfig.all(kernels), fused_attention=False)
    with torch.device("meta"):
        plan = ExecutionPlan(kernels=build_kernel_set(config, "meta"), dap=dap)
        m = torch.empty(
            1, NUM_SEQ // dap.size, NUM_RES, 256, dtype=torch.bfloat16, requires_grad=True
        )
        z = torch.empty(
            1, NUM_RES, NUM_RES // dap.size, 128, dtype=torch.bfloat16, requires_grad=True
        )
        masks = (torch.empty(1, NUM_SEQ, NUM_RES), torch.empty(1, NUM_RES, NUM_RES))
        dropout = DropoutState(seed=1, step=1, slots=torch.zeros(1, dtype=torch.int64)).at_pass(0)
        return stack(m, z, masks, dropout, plan)
