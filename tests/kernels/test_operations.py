"""The table of operations."""

import dataclasses

import pytest
import torch

from openfold_opt.kernels.interface import KernelConfig, KernelSet, KernelShapes
from openfold_opt.kernels.operations import FLOPS, OPERATIONS
from openfold_opt.kernels.triton.launching import unsupported_reason


def names_of(kind):
    return [field.name for field in dataclasses.fields(kind)]


def test_kernel_set_and_kernel_config_have_the_operations_of_the_table():
    assert names_of(KernelSet) == names_of(KernelConfig) == list(OPERATIONS)


def test_every_implementation_has_the_name_of_its_operation():
    for name, operation in OPERATIONS.items():
        kernels = operation.reference, operation.for_cpu(), operation.for_triton()
        for kernel in kernels:
            assert kernel.__name__ == kernel.__module__.rpartition(".")[2] == name


@pytest.mark.parametrize(
    ("name", "shape", "width", "expected"),
    [
        ("layer_norm", "max_norm_channels", 5000, "at most 4096 channels, found 5000"),
        ("self_attention", "max_head_size", 200, "at most 128 channels, found 200"),
        ("transition", "max_transition_channels", 384, "at most 256 channels, found 384"),
        ("outer_product_mean", "max_outer_product_channels", 65, "64 hidden channels, found 65"),
        ("invariant_point_attention", "max_pair_channels", 300, "256 channels of z, found 300"),
    ],
)
def test_supports_gives_the_reason(name, shape, width, expected):
    def reason(width):
        return OPERATIONS[name].supports(KernelShapes(**{shape: width}), "fp32", None)

    assert reason(32) is None
    assert expected in reason(width)


def test_triton_kernels_have_no_float64():
    assert unsupported_reason("meta") is None
    assert "found torch.float64" in unsupported_reason("meta", torch.float64)


def test_flops_are_those_of_operators_that_exist():
    for operation in OPERATIONS.values():
        operation.for_triton()
    assert [name for name in FLOPS if not hasattr(torch.ops.openfold, name)] == []
