"""Collectives run behind the work between their start and their wait, in the forward pass and in the backward pass."""

import gc
import weakref

import torch
from tests.parallel.gloo_ranks import run_on_ranks

from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.model.evoformer_block import EvoformerStackConfig
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import scatter, start_gather
from openfold_opt.parallel.context import ParallelContext

WORK = ("aten::bmm", "aten::mm", "aten::addmm", "aten::native_layer_norm", "aten::native_layer_norm_backward")
"""Operations that are more than a copy."""
COLLECTIVES = {
    "pair bias",
    "pairs to rows",
    "MSA to columns",
    "outer product side",
    "MSA to rows",
    "outgoing edges",
    "pairs to columns",
    "incoming edges",
    "triangle bias",
}
"""All that travels in a block."""


def traced_block(context: ParallelContext) -> list[tuple[str, float]]:
    """(name, start) of everything that this rank's main thread did in one block, forward and backward."""
    config = EvoformerStackConfig(num_blocks=1, c_hidden_msa_attention=4, num_heads_msa=2, c_hidden_triangle_multiplication=6)
    stack = EvoformerStack(config, c_m=8, c_z=6, c_s=4)
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig(), "cpu"), dap=context.dap)
    m = scatter(torch.randn(1, 4, 6, 8), context.dap, dim=1).requires_grad_()
    z = scatter(torch.randn(1, 6, 6, 6), context.dap, dim=2).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        m, z, first_row = stack(m, z, (torch.ones(1, 4, 6), torch.ones(1, 6, 6)), None, plan)
        (m.sum() + z.sum() + first_row.sum()).backward()
    events = sorted((event.time_range.start, event.name) for event in profile.events())
    return [(name, start) for start, name in events]


def spans(names: list[str], what: str) -> list[tuple[int, int]]:
    """(start, wait) places of each transfer of `what` among the names."""
    starts = [i for i, name in enumerate(names) if name.startswith("dap: start") and name.endswith(f" of {what}")]
    waits = [i for i, name in enumerate(names) if name == f"dap: wait for {what}"]
    assert len(starts) == len(waits) > 0
    return list(zip(starts, waits))


def test_work_lies_between_start_and_wait_of_every_collective_in_both_directions():
    for trace in run_on_ranks(traced_block, 2, dap_size=2):
        names = [name for name, _ in trace]
        # the stack's first row comes after its last block
        travelled = {name.partition(" of ")[2] for name in names if name.startswith("dap: start")} - {"first row"}
        assert travelled == COLLECTIVES
        for what in COLLECTIVES:
            both = spans(names, what)
            for number, (start, wait) in enumerate(both):
                assert set(WORK) & set(names[start:wait]), f"nothing runs behind {what}, number {number} of {len(both)}"


def test_nothing_is_kept_alive_in_a_circle():
    """Training runs with the garbage collector switched off: what reference counts do not free is never freed."""
    axis = AxisGroup.imagined("dap", size=2)
    gc.disable()
    try:
        x = torch.empty(4, 6, device="meta", requires_grad=True)
        flight = start_gather(x * 2.0, axis, dim=0, length=8, what="x")
        alive = weakref.ref(flight)
        y = flight.arrive()
        y.sum().backward()
        del flight, y
        assert alive() is None
    finally:
        gc.enable()
