"""Collectives run behind the work between their start and their wait, in the forward pass and in the backward pass."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch

from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.evoformer_block import EvoformerStackConfig
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.template_pair_stack import TemplatePairStack, TemplatePairStackConfig
from openfold_opt.parallel.async_collective import SharedResult
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import scatter, start_gather
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.synthetic_features import synthetic_sample
from tests.model.tiny_model import tiny_model
from tests.parallel.gloo_ranks import run_on_ranks

WORK = (
    "aten::bmm",
    "aten::mm",
    "aten::addmm",
    "aten::native_layer_norm",
    "aten::native_layer_norm_backward",
)
"""Matrix products and normalizations."""
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
"""All that travels in a block of the Evoformer."""
TEMPLATE_COLLECTIVES = {
    "templates to rows",
    "templates to columns",
    "outgoing edges",
    "incoming edges",
    "triangle bias",
}
"""All that travels in the template pair stack."""
AWAITED = "first row"
"""Wanted by the single representation as soon as the last block is done."""


def traced_block(context: ParallelContext) -> list[str]:
    """Names of everything that this rank did in one block of the Evoformer, forward and backward, in order."""
    config = EvoformerStackConfig(
        num_blocks=1, c_hidden_msa_attention=4, num_heads_msa=2, c_hidden_triangle_multiplication=6
    )
    stack = EvoformerStack(config, c_m=8, c_z=6, c_s=4)
    m = scatter(torch.randn(1, 4, 6, 8), context.dap, dim=1).requires_grad_()
    z = scatter(torch.randn(1, 6, 6, 6), context.dap, dim=2).requires_grad_()
    return traced(
        lambda plan: stack(m, z, (torch.ones(1, 4, 6), torch.ones(1, 6, 6)), None, plan), context
    )


def traced_templates(context: ParallelContext, *, num_templates: int, num_res: int) -> list[str]:
    """The same for the template pair stack of two blocks."""
    stack = TemplatePairStack(
        TemplatePairStackConfig(c_hidden_triangle_attention=4, c_hidden_triangle_multiplication=6),
        c_t=6,
    )
    t = scatter(
        torch.randn(1, num_templates, num_res, num_res, 6), context.dap, dim=2
    ).requires_grad_()
    return traced(lambda plan: (stack(t, torch.ones(1, num_res, num_res), None, plan),), context)


def traced_model(context: ParallelContext) -> list[str]:
    """The same for a whole model: a pass without gradient, and the last one."""
    model = AlphaFold(tiny_model())
    sizes = {"num_passes": 2, "N_res": 7, "N_clust": 2, "N_extra": 5, "N_templ": 2}
    batch = FeatureBatch.from_features(synthetic_sample(sizes, seed=0))

    def forward(plan: ExecutionPlan) -> tuple[torch.Tensor, ...]:
        outputs = model(batch, plan, num_recycling_iterations=1)
        return (
            outputs.masked_msa_logits,
            outputs.distogram_logits,
            outputs.lddt_logits,
            outputs.sm_positions,
        )

    return traced(forward, context)


def traced(
    forward: Callable[[ExecutionPlan], tuple[torch.Tensor, ...]], context: ParallelContext
) -> list[str]:
    """Names of what is done in forward and backward."""
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig(), "cpu"), dap=context.dap)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        sum(x.sum() for x in forward(plan)).backward()
    return [
        name
        for _, name in sorted((event.time_range.start, event.name) for event in profile.events())
    ]


def spans(names: list[str], what: str) -> list[tuple[int, int]]:
    """(start, wait) places of each transfer of `what` among the names."""
    starts = [
        i
        for i, name in enumerate(names)
        if name.startswith("dap: start") and name.endswith(f" of {what}")
    ]
    waits = [i for i, name in enumerate(names) if name == f"dap: wait for {what}"]
    # what travels under one name arrives in the order of its departure
    assert len(starts) == len(waits) > 0
    return list(zip(starts, waits))


def departures(names: list[str]) -> Counter:
    """What travels -> times, forward and backward."""
    return Counter(name.partition(" of ")[2] for name in names if name.startswith("dap: start"))


@pytest.mark.parametrize(
    ("run", "collectives"),
    [
        (traced_block, COLLECTIVES),
        (partial(traced_templates, num_templates=2, num_res=6), TEMPLATE_COLLECTIVES),
        (partial(traced_templates, num_templates=4, num_res=7), TEMPLATE_COLLECTIVES),
        (partial(traced_templates, num_templates=3, num_res=5), TEMPLATE_COLLECTIVES),
        (traced_model, COLLECTIVES | TEMPLATE_COLLECTIVES | {"pairs", "MSA"}),
    ],
)
def test_work_lies_between_start_and_wait_of_every_collective_in_both_directions(run, collectives):
    for names in run_on_ranks(run, 2, dap_size=2):
        received = departures(names)
        assert received.keys() - {AWAITED} == collectives
        if run is traced_model:
            assert (received["pairs"], received["MSA"]) == (3, 2), (
                "the MSA is gathered in the last pass alone"
            )
        for what in collectives:
            both = spans(names, what)
            for number, (start, wait) in enumerate(both):
                assert set(WORK) & set(names[start:wait]), (
                    f"nothing runs behind {what}, number {number} of {len(both)}"
                )


def test_what_is_awaited_keeps_only_what_was_made_of_it():
    x = torch.ones(3)
    alive = weakref.ref(x)
    awaited = SharedResult(
        start_gather(x, AxisGroup.single("dap"), dim=0, length=3, what="x"), torch.Tensor.double
    )
    del x
    assert alive() is not None
    assert awaited() is awaited() and awaited().dtype == torch.float64
    assert alive() is None


def test_nothing_is_kept_alive_in_a_circle():
    """Training runs with the garbage collector switched off: what reference counts do not free is never freed."""
    axis = AxisGroup.fake("dap", size=2)
    gc.disable()
    try:
        x = torch.empty(4, 6, device="meta", requires_grad=True)
        collective = start_gather(x * 2.0, axis, dim=0, length=8, what="x")
        alive = weakref.ref(collective)
        awaited = SharedResult(collective)
        y = awaited()
        assert awaited() is y
        y.sum().backward()
        del collective, awaited, y
        assert alive() is None
    finally:
        gc.enable()
