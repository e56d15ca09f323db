"""Every kernel of the benchmark compiles for Ampere and Blackwell and fits their shared memory."""

import pytest

from benchmark.perf import resources
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.presets import build_preset
from openfold_opt.kernels.triton.compiling import distinct_launches
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.graphs.graph_memory import with_evoformer_blocks
from openfold_opt.train.precision import PRECISIONS
from tests.support.compiled_kernels import assert_fits, compile_for


@pytest.fixture(scope="module")
def ampere():
    return compile_for(80, *PRECISIONS, only_memory=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_kernel_fits_ampere(ampere, precision):
    assert_fits(ampere[precision], precision, 80)


def test_every_kernel_fits_blackwell_and_compiles_completely():
    kernels = compile_for(100, "bf16", only_memory=False)["bf16"]
    assert_fits(kernels, "bf16", 100)
    assert all(kernel["registers"] > 0 for kernel in kernels)


def test_dap_launches_the_same_kernels():
    """Compiling the kernels of one DAP size therefore covers all sizes.

    The blocks of sum_partials, which has no matrix product, depend on the number of programs.
    """
    config = with_evoformer_blocks(build_preset("mlperf_reference"), 1)
    kernels_of = []
    for dap in (AxisGroup.single("dap"), AxisGroup.fake("dap", size=8)):
        step = MetaStep.build(config, kernels="triton", precision="bf16", dap=dap)
        launches = distinct_launches(resources.step_launches(step), every_alignment=False)
        kernels_of.append(
            {
                (kernel.fn, tuple(sorted(options.items())))
                for kernel, _, _, options in launches
                if "partial_sums" not in kernel.fn.__module__
            }
        )
    assert kernels_of[0] == kernels_of[1]
