"""A run sets the precision of matrix products of the process, and restores it."""

import pytest
import torch

from openfold_opt.train.precision import PRECISIONS, matmul_precision


@pytest.fixture(autouse=True)
def restored():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("allowed", [True, False])
def test_bfloat16_products_are_summed_in_float32_during_a_run(precision, allowed):
    matmul = torch.backends.cuda.matmul
    matmul.allow_bf16_reduced_precision_reduction = allowed
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(KeyError), matmul_precision(precision):
        assert matmul.allow_bf16_reduced_precision_reduction is False
        expected = "highest" if precision == "fp32" else "high"
        assert torch.get_float32_matmul_precision() == expected
        raise KeyError("a failed run")
    assert matmul.allow_bf16_reduced_precision_reduction is allowed
    assert torch.get_float32_matmul_precision() == "medium"


def test_the_error_names_an_unknown_precision():
    with pytest.raises(ValueError, match="unknown precision 'fp8'"), matmul_precision("fp8"):
        pass
