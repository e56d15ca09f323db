"""Every Triton operation in bfloat16 at the training shapes, compared with the reference."""

import dataclasses

import pytest
import torch

from benchmark.presets import build_preset
from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.train.operation_shapes import operations_of_step
from tests.support.kernel_agreement import DEVICE, assert_bfloat16_rule
from tests.support.synthetic_samples import tiny_config

CONFIGS = {"tiny": tiny_config, "benchmark": lambda: build_preset("mlperf_reference")}
SIZES = ["tiny", pytest.param("benchmark", marks=pytest.mark.gpu)]


def places(size):
    return {
        f"{place.operation}, {place.where}": place
        for place in operations_of_step(CONFIGS[size]())
        if OPERATIONS[place.operation].has_gradient
    }


# The names do not depend on the sizes.
NAMES = list(places("tiny"))


def test_every_operation_with_gradients_is_in_the_list():
    expected = {name for name, operation in OPERATIONS.items() if operation.has_gradient}
    assert {name.split(",")[0] for name in NAMES} == expected


def with_gate_bias_alone(arguments):
    """Replace the bias of the projection by that of the gates; the other parts have none."""
    x, weight, bias, *others = arguments.leaves
    gates = bias.detach()[3 * len(bias) // 4 :].clone().requires_grad_()

    def call(kernel):
        run = arguments.call(kernel)
        return lambda x, weight, gates, *rest: run(
            x, weight, torch.nn.functional.pad(gates, (3 * len(gates), 0)), *rest
        )

    return dataclasses.replace(arguments, leaves=(x, weight, gates, *others), call=call)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_values_and_gradients(name, size):
    config = CONFIGS[size]()
    kernels = build_kernel_set(KernelConfig.all("triton"), DEVICE, config.model.kernel_shapes())
    place = places(size)[name]
    make = TensorMaker(device=torch.device(DEVICE), dtype=torch.bfloat16)
    arguments = place.shapes.arguments(make)
    if place.operation == "self_attention":
        arguments = with_gate_bias_alone(arguments)
    assert_bfloat16_rule(
        arguments.call(getattr(kernels, place.operation)),
        arguments.call(OPERATIONS[place.operation].reference),
        arguments.leaves,
        [leaf.dtype == torch.bfloat16 for leaf in arguments.leaves],
    )
