"""Dropout sites and their masks."""

import itertools

import torch

from openfold_opt.model.dropout import DropoutState, dropout_site
from openfold_opt.model.plan import ExecutionPlan


def test_every_site_has_a_unique_number():
    numbers = [dropout_site(*site) for site in itertools.product(range(4), range(64), range(5))]
    assert len(set(numbers)) == len(numbers)


def test_the_mask_of_a_block_is_that_of_its_site():
    plan = ExecutionPlan.reference()
    slots = torch.tensor([3, 1])
    dropout = DropoutState(seed=1, step=2, slots=slots).at_pass(1)
    masks = dropout.masks(plan, part=2, site=3, num_blocks=4, shape=(1, 9, 5), rate=0.25)
    assert masks.shape == (4, 2, 1, 9, 5)
    site = torch.tensor([dropout_site(2, 3, 3)])
    expected = plan.kernels.dropout_masks(
        (1, 2), site, slots, pass_index=1, shape=(1, 9, 5), rate=0.25
    )
    assert torch.equal(masks[3], expected[0])
