"""On one device a block computes the lines of its algorithm with whole modules."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from openfold_opt.model.evoformer_block import (
    EvoformerBlock,
    EvoformerStackConfig,
    ExtraMSABlock,
    ExtraMSAStackConfig,
)
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, MSAMasks, PairMasks
from openfold_opt.model.template_pair_stack import TemplatePairBlock, TemplatePairStackConfig
from openfold_opt.model.template_schedule import split_groups
from openfold_opt.parallel.axis import AxisGroup

N_SEQ, N_RES, C_M, C_Z = 5, 7, 8, 6
PLAN = ExecutionPlan.reference()


def randomized(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return module


def random_masks() -> tuple[MSAMasks, PairMasks]:
    msa_mask = (torch.rand(1, N_SEQ, N_RES) > 0.2).float()
    pair_mask = (torch.rand(1, N_RES, N_RES) > 0.2).float()
    msa_masks = MSAMasks.build(msa_mask, PLAN, eps=1e-3, dtype=msa_mask.dtype)
    return msa_masks, PairMasks.build(pair_mask, PLAN)


def random_dropout() -> BlockDropout:
    by_row = {name: torch.rand(1, 1, N_RES, C_Z) for name in ("outgoing", "incoming", "starting")}
    return BlockDropout(
        msa_row=torch.rand(1, 1, N_RES, C_M), ending=torch.rand(1, N_RES, 1, C_Z), **by_row
    )


def update_pairs(block: nn.Module, z: Tensor, mask: Tensor, dropout: BlockDropout) -> Tensor:
    z = block.tri_mul_out(z, mask, dropout.outgoing, PLAN)
    z = block.tri_mul_in(z, mask, dropout.incoming, PLAN)
    z = block.tri_att_start(z, mask, dropout.starting, PLAN)
    z = block.tri_att_end(z, mask, dropout.ending, PLAN)
    return block.pair_transition(z, PLAN)


@pytest.mark.parametrize("kind", [EvoformerBlock, ExtraMSABlock])
def test_a_block_of_an_msa_stack_is_its_algorithm(kind):
    torch.manual_seed(0)
    if kind is EvoformerBlock:
        block = randomized(kind(EvoformerStackConfig(), c_m=C_M, c_z=C_Z))
    else:
        block = randomized(kind(ExtraMSAStackConfig(), c_e=C_M, c_z=C_Z))
    m, z = torch.randn(1, N_SEQ, N_RES, C_M), torch.randn(1, N_RES, N_RES, C_Z)
    masks, dropout, core = random_masks(), random_dropout(), block.core
    (msa_masks, pair_masks), msa_mask = masks, masks[0].row
    expected_m = block.msa_att_row(m, z, msa_mask, dropout.msa_row, PLAN)
    expected_m = core.msa_transition(
        block.msa_att_col(expected_m, msa_mask.transpose(1, 2), PLAN), PLAN
    )
    expected_z = core.outer_product_mean(expected_m, msa_mask, z, msa_masks.norm, PLAN)
    expected_z = update_pairs(core, expected_z, pair_masks.row, dropout)
    updated_m, updated_z = block(m, z, masks, dropout, PLAN)
    assert torch.equal(updated_m, expected_m) and torch.equal(updated_z, expected_z)


def test_a_block_of_the_template_pair_stack_is_its_algorithm():
    torch.manual_seed(0)
    block = randomized(TemplatePairBlock(TemplatePairStackConfig(), c_t=C_Z))
    t, (_, masks), dropout = torch.randn(1, N_RES, N_RES, C_Z), random_masks(), random_dropout()
    expected = block.tri_att_start(t, masks.row, dropout.starting, PLAN)
    expected = block.tri_att_end(expected, masks.row, dropout.ending, PLAN)
    expected = block.tri_mul_out(expected, masks.row, dropout.outgoing, PLAN)
    expected = block.tri_mul_in(expected, masks.row, dropout.incoming, PLAN)
    expected = block.pair_transition(expected, PLAN)
    (updated,) = block((t,), masks, dropout, PLAN)
    assert torch.equal(updated, expected)


@pytest.mark.parametrize("num_chunks", [1, 2, 3])
def test_templates_are_split_into_groups_without_copies(num_chunks):
    axis = dataclasses.replace(AxisGroup.fake("dap", size=4), num_chunks=num_chunks)
    plan = dataclasses.replace(PLAN, dap=axis)
    for length in range(1, 8):
        x = torch.randn(length, 5)
        groups = split_groups(x, plan)
        assert torch.equal(torch.cat(groups), x)
        # Two or more samples give at least two groups.
        assert min(length, num_chunks, 2) <= len(groups) <= num_chunks
        assert len({group.untyped_storage().data_ptr() for group in groups}) == 1, "no copies"
        assert all(part is x for part in split_groups(x, plan.without_chunks()))
        assert all(part is x for part in split_groups(x, PLAN))
