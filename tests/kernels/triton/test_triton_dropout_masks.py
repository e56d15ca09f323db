"""Dropout masks in Triton are bit-identical to the reference."""

import pytest
import torch

from openfold_opt.kernels.reference.dropout_masks import dropout_masks as reference
from openfold_opt.kernels.triton.dropout_masks import dropout_masks
from tests.support.kernel_agreement import DEVICE


@pytest.mark.parametrize("shape", [(1, 5, 3), (7,), (1, 40, 33)])
@pytest.mark.parametrize("seed", [5, 2**40 + 17, 2**32 - 1])
@pytest.mark.parametrize("rate", [0.25, 0.15, 0.0])
def test_masks_have_the_same_bits(shape, seed, rate):
    sites = torch.tensor([16, 4096 * 16 + 3], device=DEVICE)
    slots = torch.tensor([0, 255, 7], device=DEVICE)
    for step, pass_index in ((1, 0), (2**31, 1), (12, 3)):
        options = {"pass_index": pass_index, "shape": shape, "rate": rate}
        assert torch.equal(
            dropout_masks((seed, step), sites, slots, **options),
            reference((seed, step), sites, slots, **options),
        )


def test_the_key_may_be_on_the_device():
    sites, slots = torch.tensor([16], device=DEVICE), torch.tensor([3], device=DEVICE)
    key = torch.tensor(9, device=DEVICE), torch.tensor(4, device=DEVICE)
    options = {"pass_index": 1, "shape": (9,), "rate": 0.5}
    assert torch.equal(
        dropout_masks(key, sites, slots, **options), reference(key, sites, slots, **options)
    )
