"""Every kernel of the benchmark compiles for Hopper in every precision and fits its shared memory.

Other GPUs are tested in a separate file, so that two test processes share the work.
"""

import pytest

from openfold_opt.train.precision import PRECISIONS
from tests.support.compiled_kernels import assert_fits, compile_for, run_perf_resources

CAPABILITY = 90


@pytest.fixture(scope="module")
def kernels():
    return compile_for(CAPABILITY, *PRECISIONS, only_memory=True)


@pytest.fixture(scope="module")
def compiled():
    return compile_for(CAPABILITY, "bf16", only_memory=False)["bf16"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_kernel_fits(kernels, precision):
    assert_fits(kernels[precision], precision, CAPABILITY)


def test_no_kernel_spills_in_bf16(compiled):
    assert_fits(compiled, "bf16", CAPABILITY)
    assert [kernel for kernel in compiled if kernel["spills"] or kernel["stack_bytes"]] == []


@pytest.mark.parametrize(
    ("operation", "kernels_of_operation"),
    [
        (
            "attention",
            {
                "forward_kernel",
                "input_gradient_kernel",
                "bias_gradient_kernel",
                "normalized_forward_kernel",
            },
        ),
        ("outer_product_mean", {"forward_kernel", "weight_gradient_kernel"}),
        ("transition", {"forward_kernel", "row_gradient_kernel"}),
    ],
)
def test_products_use_only_matrix_instructions_of_a_warpgroup(
    compiled, operation, kernels_of_operation
):
    kernels = [kernel for kernel in compiled if kernel["kernel"].startswith(f"{operation}.")]
    assert {kernel["kernel"].rpartition(".")[2] for kernel in kernels} == kernels_of_operation
    assert [kernel for kernel in kernels if kernel["mma"] or not kernel["wgmma"]] == []


def test_only_memory_reports_the_allocation_of_the_complete_compilation(kernels, compiled):
    allocated = {(k["kernel"], k["signature"]): k["shared_bytes"] for k in kernels["bf16"]}
    for kernel in compiled:
        assert allocated[kernel["kernel"], kernel["signature"]] == kernel["shared_bytes"], kernel


def test_the_interpreter_cannot_compile():
    process = run_perf_resources(TRITON_INTERPRET="1")
    assert process.returncode == 2 and "TRITON_INTERPRET is set" in process.stderr
