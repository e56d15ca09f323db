"""Every kernel of the benchmark compiles for Hopper in every precision and fits its shared memory.

Other chips are in a file of their own, so that two test processes share the work.
"""

import pytest

from openfold_opt.train.precision import PRECISIONS
from tests.benchmark.compiled_kernels import assert_fits, compile_for, run_perf_resources

CAPABILITY = 90


@pytest.fixture(scope="module")
def kernels():
    return compile_for(CAPABILITY, *PRECISIONS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_kernel_fits(kernels, precision):
    assert_fits(kernels[precision], precision, CAPABILITY)


def test_no_kernel_spills_in_bf16(kernels):
    assert [kernel for kernel in kernels["bf16"] if kernel["spills"] or kernel["stack_bytes"]] == []


def test_the_interpreter_cannot_compile():
    finished = run_perf_resources(TRITON_INTERPRET="1")
    assert finished.returncode == 2 and "TRITON_INTERPRET is set" in finished.stderr
