"""Collectives overlap with the computation between start and wait, forward and backward."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
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
from tests.support.gloo_ranks import run_on_ranks
from tests.support.tiny_model import tiny_model

COMPUTE_OPS = (
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
"""Names of all collectives of an Evoformer block."""
TEMPLATE_COLLECTIVES = {
    "templates to rows",
    "templates to columns",
    "outgoing edges",
    "incoming edges",
    "triangle bias",
}
"""Names of all collectives of the template pair stack."""
NOT_OVERLAPPED = "first row"
"""The single representation needs this tensor immediately after the last block."""


def traced_block(context: ParallelContext) -> list[str]:
    """Return the names of all operations of this rank in one Evoformer block, in order."""
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
    """Return the names of all operations of a template pair stack of two blocks."""
    stack = TemplatePairStack(
        TemplatePairStackConfig(c_hidden_triangle_attention=4, c_hidden_triangle_multiplication=6),
        c_t=6,
    )
    t = scatter(
        torch.randn(1, num_templates, num_res, num_res, 6), context.dap, dim=2
    ).requires_grad_()
    return traced(lambda plan: (stack(t, torch.ones(1, num_res, num_res), None, plan),), context)


def traced_model(context: ParallelContext) -> list[str]:
    """Return the names of all operations of a model with one recycling iteration."""
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
    """Return the names of all operations in forward and backward, sorted by start time."""
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig(), "cpu"), dap=context.dap)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        sum(x.sum() for x in forward(plan)).backward()
    return [
        name
        for _, name in sorted((event.time_range.start, event.name) for event in profile.events())
    ]


def spans(names: list[str], what: str) -> list[tuple[int, int]]:
    """Return the (start, wait) indices of each transfer of `what`."""
    starts = [
        i
        for i, name in enumerate(names)
        if name.startswith("dap: start") and name.endswith(f" of {what}")
    ]
    waits = [i for i, name in enumerate(names) if name == f"dap: wait for {what}"]
    # Transfers with the same name are waited for in the order in which they were started.
    assert len(starts) == len(waits) > 0
    return list(zip(starts, waits))


def count_starts(names: list[str]) -> Counter:
    """Return the number of transfers started, by name of the tensor."""
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
def test_every_collective_overlaps_with_computation_forward_and_backward(run, collectives):
    for names in run_on_ranks(run, 2, dap_size=2):
        started = count_starts(names)
        assert started.keys() - {NOT_OVERLAPPED} == collectives
        if run is traced_model:
            assert (started["pairs"], started["MSA"]) == (3, 2), (
                "expected the MSA to be gathered in the last pass only"
            )
        for what in collectives:
            transfers = spans(names, what)
            for number, (start, wait) in enumerate(transfers):
                assert set(COMPUTE_OPS) & set(names[start:wait]), (
                    f"no computation overlaps with {what}, number {number} of {len(transfers)}"
                )


def test_a_shared_result_keeps_only_the_finished_tensor():
    x = torch.ones(3)
    alive = weakref.ref(x)
    result = SharedResult(
        start_gather(x, AxisGroup.single("dap"), dim=0, length=3, what="x"), torch.Tensor.double
    )
    del x
    assert alive() is not None
    assert result() is result() and result().dtype == torch.float64
    assert alive() is None


def test_collectives_create_no_reference_cycles():
    """Training runs with the garbage collector disabled, so reference cycles would leak memory."""
    axis = AxisGroup.fake("dap", size=2)
    gc.disable()
    try:
        x = torch.empty(4, 6, device="meta", requires_grad=True)
        collective = start_gather(x * 2.0, axis, dim=0, length=8, what="x")
        alive = weakref.ref(collective)
        result = SharedResult(collective)
        y = result()
        assert result() is y
        y.sum().backward()
        del collective, result, y
        assert alive() is None
    finally:
        gc.enable()
