"""Sums of partial sums in Triton compared with PyTorch."""

import pytest
import torch

from openfold_opt.kernels.triton.partial_sums import join_parts, sum_partials, sum_parts
from tests.support.kernel_agreement import random


@pytest.mark.parametrize("shape", [(1, 5), (3, 7, 33), (16, 40, 130), (200, 2, 9), (513, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_in_the_order_of_the_parameter(shape, dtype):
    partial = random(*shape)
    found = sum_partials(partial, dtype)
    assert found.dtype == dtype and found.shape == shape[1:] and found.is_contiguous()
    torch.testing.assert_close(found.float(), partial.sum(0), rtol=2**-8, atol=1e-4)


def test_a_sum_of_low_precision_is_computed_in_float32():
    parts = [random(3, 5, seed=k).bfloat16() for k in range(20)]
    found = sum_parts(parts, torch.float32)
    torch.testing.assert_close(found, torch.stack(parts).float().sum(0), rtol=1e-5, atol=1e-5)


def test_a_single_part_is_not_copied():
    part = random(3, 5)
    assert sum_parts([part], torch.float32) is part and join_parts([part]) is part
