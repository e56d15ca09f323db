"""The table of operations."""

import dataclasses

import pytest
import torch

from benchmark.perf.tools.counting import Counter
from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.interface import KernelConfig, KernelSet, KernelShapes
from openfold_opt.kernels.operations import FLOPS, OPERATIONS
from openfold_opt.kernels.reference.transition import TransitionShapes
from openfold_opt.kernels.triton.launching import unsupported_reason
from openfold_opt.train.operation_shapes import operations_of_step
from tests.support.prediction_shapes import prediction_shapes
from tests.support.synthetic_samples import tiny_config


def names_of(kind):
    return [field.name for field in dataclasses.fields(kind)]


def test_kernel_set_and_kernel_config_have_the_operations_of_the_table():
    assert list(KernelConfig().implementations) == list(OPERATIONS)
    # A set has two more kernels, each of which replaces several operations.
    replacing = ["triangle_multiplication", "residual_attention"]
    assert names_of(KernelSet) == [*OPERATIONS, *replacing]


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


TRANSITION = TransitionShapes(leading=(2, 40, 24), c=16, factor=4)


def test_workspace_of_another_implementation_or_other_shapes_is_an_error():
    transition = OPERATIONS["transition"]
    with pytest.raises(ValueError, match="found implementation 'auto', expected reference, cpu or"):
        transition.workspace(TRANSITION, torch.float32, implementation="auto")
    with pytest.raises(TypeError, match="shapes of type TransitionShapes, expected LayerNormSh"):
        OPERATIONS["layer_norm"].bytes(TRANSITION, torch.float32)


def test_workspace_of_a_transition():
    """The reference has the hidden layer before and after its activation, in bfloat16 half of it.

    Without gradient the normalized rows are freed last. The Triton kernel has the hidden layer and
    its gradient in the backward pass alone.
    """
    transition, hidden = OPERATIONS["transition"], 2 * 40 * 24 * 64 * 4
    for dtype, size in ((torch.float32, hidden), (torch.bfloat16, hidden // 2)):
        found = transition.workspace(TRANSITION, dtype, implementation="reference")
        assert 2 * size <= found.inference <= found.forward < 3 * size
        fused = transition.workspace(TRANSITION, dtype, implementation="triton")
        assert fused.inference < 0.1 * size
        assert 2 * size <= fused.backward == fused.training < 3 * size


def test_workspace_of_a_transition_of_many_rows():
    """The hidden layer and its gradient are in memory for a part of the rows at a time."""
    shapes, part = TransitionShapes(leading=(1, 512, 384), c=256, factor=4), 2**26 * 2
    found = OPERATIONS["transition"].workspace(shapes, torch.bfloat16, implementation="triton")
    assert 2 * part < found.backward < 4 * part


def test_bytes_of_a_transition_are_those_of_inputs_results_and_gradients():
    rows, weights = 2 * 40 * 24 * 16 * 4, (2 * 16 + 2 * 64 * 16 + 64 + 16) * 4
    found = OPERATIONS["transition"].bytes(TRANSITION, torch.float32)
    assert found.forward == 2 * rows + weights
    assert found.both == found.forward + 3 * rows + 2 * weights


@pytest.mark.parametrize("name", OPERATIONS)
def test_triton_launches_move_at_least_the_bytes_of_the_table(name):
    """The launches of an operation together have all its arguments and results as operands."""
    places = {place.operation: place.shapes for place in operations_of_step(tiny_config())}
    shapes = (places | prediction_shapes(40))[name]
    arguments = shapes.arguments(TensorMaker(device=torch.device("meta"), dtype=torch.bfloat16))
    with Counter() as counter, torch.no_grad():
        arguments.call(OPERATIONS[name].for_triton())(*arguments.leaves)
    least = OPERATIONS[name].bytes(shapes, torch.bfloat16)
    # A launch counts an operand that is modified in place once, not as read and written.
    updated = sum(x.nbytes for x in arguments.updated)
    assert counter.counts.bytes >= least.forward - updated > 0
