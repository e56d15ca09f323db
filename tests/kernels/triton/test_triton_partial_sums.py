"""Sums of partial sums in Triton compared with PyTorch."""

import pytest
import torch

from openfold_opt.kernels.triton.partial_sums import sum_partials
from tests.support.kernel_agreement import random


@pytest.mark.parametrize("shape", [(1, 5), (3, 7, 33), (16, 40, 130), (200, 2, 9), (513, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_in_the_order_of_the_parameter(shape, dtype):
    partial = random(*shape)
    found = sum_partials(partial, dtype)
    assert found.dtype == dtype and found.shape == shape[1:] and found.is_contiguous()
    torch.testing.assert_close(found.float(), partial.sum(0), rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 40, 130), (5, 1, 3)])
def test_a_transposed_sum_is_contiguous(shape):
    partial = random(*shape)
    found = sum_partials(partial, torch.float32, is_transposed=True)
    assert found.is_contiguous()
    torch.testing.assert_close(found, partial.sum(0).t(), rtol=1e-5, atol=1e-5)
