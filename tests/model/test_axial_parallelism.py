"""Stacks spread over two ranks give what one rank gives, outputs and gradients of their inputs."""

import torch
from tests.parallel.gloo_ranks import run_on_ranks

from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.extra_msa_stack import ExtraMSAStack
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.model.template_pair_stack import TemplatePairStack, TemplatePairStackConfig
from openfold_opt.parallel.context import ParallelContext

BATCH, NUM_SEQ, NUM_RES, C_M, C_Z = 2, 6, 8, 12, 10
_SIZES = {
    "num_blocks": 2,
    "c_hidden_msa_attention": 3,
    "num_heads_msa": 2,
    "c_hidden_outer_product": 5,
    "c_hidden_triangle_multiplication": 7,
    "c_hidden_triangle_attention": 3,
    "num_heads_triangle": 2,
    "transition_factor": 2,
}


def run_stacks(context: ParallelContext) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    modules = (
        EvoformerStack(EvoformerStackConfig(**_SIZES), c_m=C_M, c_z=C_Z, c_s=4),
        ExtraMSAStack(ExtraMSAStackConfig(**_SIZES), c_e=C_M, c_z=C_Z),
        TemplatePairStack(TemplatePairStackConfig(c_hidden_triangle_multiplication=6), c_t=C_Z),
    )
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(0.3 * random(*parameter.shape))
    evoformer, extra, templates = modules
    m, z, t = random(BATCH, NUM_SEQ, NUM_RES, C_M), random(BATCH, NUM_RES, NUM_RES, C_Z), random(BATCH, 2, NUM_RES, NUM_RES, C_Z)
    inputs = [x.requires_grad_() for x in (m, z, t)]
    msa_mask, pair_mask = torch.ones(BATCH, NUM_SEQ, NUM_RES), torch.ones(BATCH, NUM_RES, NUM_RES)
    msa_mask[1, 4:] = 0.0
    pair_mask[0, 5:] = 0.0
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig(), "cpu"), dap=context.dap, num_recomputed_blocks=ALL_BLOCKS)
    dropout = DropoutState(seed=1, step=2, slots=torch.tensor([4, 7])).at_pass(1)
    t_new = templates(t, pair_mask, dropout, plan)
    z_new = extra(m, z + t_new.mean(1), (msa_mask, pair_mask), dropout, plan)
    outputs = evoformer(m, z_new, (msa_mask, pair_mask), dropout, plan)
    gradients = torch.autograd.grad(sum(x.square().mean() for x in outputs), inputs)
    return [x.detach() for x in (*outputs, *gradients)]


def errors_against_one_rank(context: ParallelContext) -> list[float]:
    """Relative error of every output and gradient; single numbers, as a queue holds little."""
    pairs = zip(run_stacks(context), run_stacks(ParallelContext.alone()))
    return [((spread - alone).norm() / alone.norm()).item() for spread, alone in pairs]


def test_two_ranks_give_what_one_gives():
    for errors in run_on_ranks(errors_against_one_rank, 2, dap_size=2):
        assert len(errors) == 6
        assert max(errors) < 1e-5, errors
