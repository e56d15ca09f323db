"""Outputs and parameter gradients of a DAP group equal those of one rank."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.evoformer_block import EvoformerStackConfig
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.model.template_pair_stack import TemplatePairStack, TemplatePairStackConfig
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import gather, scatter
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.gradients import average_gradients
from openfold_opt.train.synthetic_features import synthetic_sample
from tests.support.gloo_ranks import run_on_ranks
from tests.support.tiny_model import tiny_model

DROPOUT = DropoutState(seed=1, step=2, slots=torch.tensor([4, 7]))
ZERO_GRADIENTS = ("msa_att_row.layer_norm_z.bias", "ipa.linear_b.bias")
"""They shift all logits of a row equally, so their gradient is zero up to rounding."""
MIN_RELATIVE_NORM = 1e-6
"""Minimum norm in relative errors of a gradient, as a fraction of the norm of all gradients.

Smaller gradients are dominated by rounding.
"""


def plan_for(dap: AxisGroup, *, kernels: str, num_recomputed_blocks: int) -> ExecutionPlan:
    kernel_set = build_kernel_set(KernelConfig.all(kernels), "cpu")
    return ExecutionPlan(kernels=kernel_set, dap=dap, num_recomputed_blocks=num_recomputed_blocks)


def randomize(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim < 2 else 1.0 / parameter.shape[1] ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def synthetic_batch(num_res: int) -> FeatureBatch:
    """Build two samples; the second one is shorter by two residues and one sequence.

    The two clusters are fewer rows than four ranks.
    """
    sizes = {"num_passes": 2, "N_res": num_res, "N_clust": 2, "N_extra": 5, "N_templ": 2}
    samples = [synthetic_sample(sizes, seed=seed) for seed in range(2)]
    samples[1]["seq_mask"][:, -2:] = 0.0
    samples[1]["msa_mask"][..., -2:] = 0.0
    samples[1]["extra_msa_mask"][:, :, -1:] = 0.0
    return FeatureBatch.from_features(
        {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}
    )


def run_model(
    dap: AxisGroup,
    *,
    num_res: int,
    kernels: str,
    num_recomputed_blocks: int,
    has_templates: bool = True,
) -> tuple[list[Tensor], nn.Module]:
    """Run the model with recycling, dropout and losses.

    Returns:
        The outputs, and the module with the gradients of this rank.
    """
    config = dataclasses.replace(tiny_model(), has_templates=has_templates)
    model = AlphaFold(config, seed=None)
    randomize(model)
    batch = synthetic_batch(num_res)
    plan = plan_for(dap, kernels=kernels, num_recomputed_blocks=num_recomputed_blocks)
    outputs = model(batch, plan, num_recycling_iterations=1, dropout=DROPOUT)
    terms = AlphaFoldLoss(LossConfig.initial_training())(outputs, batch.at_pass(1))
    terms.loss.backward()
    return [
        outputs.msa,
        outputs.pair,
        outputs.single,
        outputs.final_atom_positions,
        terms.loss,
    ], model


def run_full_width_block(
    dap: AxisGroup, *, num_res: int, num_chunks: int = 2
) -> tuple[list[Tensor], nn.Module]:
    """Run one Evoformer block with the widths of the benchmark."""
    dap = dataclasses.replace(dap, num_chunks=num_chunks)
    stack = EvoformerStack(EvoformerStackConfig(num_blocks=1), c_m=256, c_z=128, c_s=384)
    randomize(stack)
    generator = torch.Generator().manual_seed(1)
    m, z = (
        torch.randn(2, 6, num_res, 256, generator=generator),
        torch.randn(2, num_res, num_res, 128, generator=generator),
    )
    msa_mask, pair_mask = torch.ones(2, 6, num_res), torch.ones(2, num_res, num_res)
    msa_mask[1, 4:] = 0.0
    pair_mask[0, 5:] = 0.0
    plan = plan_for(dap, kernels="reference", num_recomputed_blocks=0)
    m, z = scatter(m, dap, dim=1), scatter(z, dap, dim=2)
    m, z = stack(m, z, (msa_mask, pair_mask), DROPOUT.at_pass(1), plan)
    m, z = (
        gather(m, dap, dim=1, length=6, what="x"),
        gather(z, dap, dim=2, length=num_res, what="x"),
    )
    outputs = [m, z, stack.single(m[:, 0])]
    sum(x.square().mean() for x in outputs).backward()
    return outputs, stack


def run_full_width_templates(
    dap: AxisGroup,
    *,
    num_res: int,
    num_templates: int,
    num_chunks: int = 2,
    num_recomputed_blocks: int = 0,
) -> tuple[list[Tensor], nn.Module]:
    """Run both blocks of the template pair stack of the benchmark."""
    dap = dataclasses.replace(dap, num_chunks=num_chunks)
    stack = TemplatePairStack(TemplatePairStackConfig(), c_t=64)
    randomize(stack)
    t = torch.randn(
        2, num_templates, num_res, num_res, 64, generator=torch.Generator().manual_seed(1)
    )
    pair_mask = torch.ones(2, num_res, num_res)
    pair_mask[0, 5:] = 0.0
    plan = plan_for(dap, kernels="reference", num_recomputed_blocks=num_recomputed_blocks)
    t = stack(scatter(t, dap, dim=2), pair_mask, DROPOUT.at_pass(1), plan)
    t = gather(t, dap, dim=3, length=num_res, what="x")
    # Use a random linear loss: after the last normalization, sums of squares are constant.
    (t * torch.randn(t.shape, generator=torch.Generator().manual_seed(2))).mean().backward()
    return [t], stack


RUNS = {"model": run_model, "block": run_full_width_block, "templates": run_full_width_templates}


def averaged_gradients(module: nn.Module, axis: AxisGroup) -> list[Tensor]:
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in module.parameters()]
    for gradient in gradients:
        average_gradients(gradient.view(-1), axis, bucket_bytes=2**20)
    return gradients


def relative(x: Tensor, y: Tensor) -> float:
    return ((x - y).norm() / y.norm()).item()


def results_of_one_rank(kind: str, case: dict) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs and parameter gradients of a run without DAP."""
    outputs, module = RUNS[kind](AxisGroup.single("dap"), **case)
    return [x.detach() for x in outputs], averaged_gradients(module, AxisGroup.single("dap"))


def compare_with_one_rank(
    context: ParallelContext,
    kind: str,
    case: dict,
    one_rank: tuple[list[Tensor], list[Tensor]],
) -> tuple[float, float, bool]:
    """Compare the DAP group with one rank, and with itself without overlap.

    one_rank: from results_of_one_rank.

    Returns:
        The largest relative error of an output and of a parameter gradient, and whether the results
        without overlap are bit-identical.
    """
    outputs, module = RUNS[kind](context.dap, **case)
    expected, expected_gradients = one_rank
    blocking_outputs, blocking_module = RUNS[kind](
        dataclasses.replace(context.dap, overlaps=False), **case
    )
    gradients = averaged_gradients(module, context.dap)
    names = [name for name, _ in module.named_parameters()]
    floor = MIN_RELATIVE_NORM * torch.cat([x.flatten() for x in expected_gradients]).norm()
    worst = max(
        ((x - y).norm() / y.norm().clamp(min=floor)).item()
        for name, x, y in zip(names, gradients, expected_gradients)
        if not name.endswith(ZERO_GRADIENTS)
    )
    blocking_gradients = averaged_gradients(blocking_module, context.dap)
    is_same = all(
        torch.equal(x, y)
        for x, y in zip([*outputs, *gradients], [*blocking_outputs, *blocking_gradients])
    )
    return max(relative(x, y) for x, y in zip(outputs, expected)), worst, is_same


def compare_cases(
    context: ParallelContext, cases: list[tuple[str, dict]], one_rank: Path
) -> list[tuple[float, float, bool]]:
    """Compare all cases. one_rank: file with the results_of_one_rank of each case."""
    expected = torch.load(one_rank)
    return [
        compare_with_one_rank(context, kind, case, results)
        for (kind, case), results in zip(cases, expected, strict=True)
    ]


def model_case(
    num_res: int, kernels: str, num_recomputed_blocks: int, **case: bool
) -> tuple[str, dict]:
    return "model", {
        "num_res": num_res,
        "kernels": kernels,
        "num_recomputed_blocks": num_recomputed_blocks,
        **case,
    }


def block_case(num_res: int, **case: int) -> tuple[str, dict]:
    return "block", {"num_res": num_res, **case}


def template_case(num_res: int, num_templates: int, **case: int) -> tuple[str, dict]:
    return "templates", {"num_res": num_res, "num_templates": num_templates, **case}


@pytest.mark.parametrize(
    ("dap_size", "cases"),
    [
        pytest.param(
            2,
            [
                model_case(8, "reference", 0),
                model_case(7, "cpu", ALL_BLOCKS),
                model_case(7, "reference", 0, has_templates=False),
                block_case(16, num_chunks=1),
                block_case(16, num_chunks=3),
            ],
            marks=pytest.mark.compiler,
        ),
        (
            2,
            [
                template_case(9, 4),
                template_case(8, 1, num_chunks=3),
                template_case(7, 2, num_recomputed_blocks=ALL_BLOCKS),
            ],
        ),
        pytest.param(
            4,
            [
                model_case(8, "cpu", 0),
                model_case(7, "reference", ALL_BLOCKS),
                block_case(15),
                template_case(15, 4, num_chunks=3),
            ],
            marks=pytest.mark.compiler,
        ),
        (8, [block_case(16), block_case(13), template_case(16, 2), template_case(13, 3)]),
    ],
)
def test_a_dap_group_matches_one_rank(tmp_path, dap_size, cases):
    one_rank = tmp_path / "one_rank.pt"
    torch.save([results_of_one_rank(kind, case) for kind, case in cases], one_rank)
    for results in run_on_ranks(compare_cases, dap_size, cases, one_rank, dap_size=dap_size):
        for case, (output_error, gradient_error, is_same) in zip(cases, results):
            assert output_error < 1e-5, case
            assert gradient_error < 1e-4, case
            assert is_same, f"overlap changes bits: {case}"
