"""Every Triton operation in bfloat16 at the training shapes, compared with the reference."""

import pytest
import torch

from benchmark.perf.tools.kernel_cases import CaseMaker
from benchmark.presets import build_preset
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.select import build_kernel_set
from tests.support.kernel_agreement import DEVICE, assert_bfloat16_rule
from tests.support.synthetic_samples import tiny_config

CONFIGS = {"tiny": tiny_config, "benchmark": lambda: build_preset("mlperf_reference")}
SIZES = ["tiny", pytest.param("benchmark", marks=pytest.mark.gpu)]


def maker(size, device=DEVICE):
    return CaseMaker(CONFIGS[size](), device=torch.device(device), precision="bf16")


def name_of(case):
    return f"{case.operation}, {case.where}"


# The names do not depend on sizes or device, so the tiny cases on the CPU have all of them.
NAMES = [name_of(case) for case in maker("tiny", "cpu").cases()]


def test_every_operation_with_activations_has_a_case():
    without = {"dropout_masks", "weight_update"}
    in_training = {name for name, operation in OPERATIONS.items() if operation.in_training}
    assert {name.split(",")[0] for name in NAMES} == in_training - without


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_values_and_gradients(name, size):
    config = CONFIGS[size]()
    kernels = build_kernel_set(KernelConfig.all("triton"), DEVICE, config.model.kernel_shapes())
    case = next(case for case in maker(size).cases() if name_of(case) == name)
    is_low = [leaf.dtype == torch.bfloat16 for leaf in case.leaves]
    assert_bfloat16_rule(
        case.call(getattr(kernels, case.operation)),
        case.call(OPERATIONS[case.operation].reference),
        case.leaves,
        is_low,
    )
