"""Every kernel of the benchmark compiles for Ampere and Blackwell and fits their shared memory."""

import pytest

from benchmark.perf import resources
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.presets import build_preset
from openfold_opt.kernels.triton.compiling import distinct_launches, kernel_name
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.graphs.graph_memory import with_evoformer_blocks
from openfold_opt.train.precision import PRECISIONS
from tests.support.compiled_kernels import assert_fits, compile_for


@pytest.fixture(scope="module")
def ampere():
    return compile_for(80, *PRECISIONS, only_memory=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_kernel_fits_ampere(ampere, precision):
    assert_fits(ampere[precision], precision, 80)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_every_kernel_fits_blackwell(precision):
    kernels = compile_for(100, precision, only_memory=True)[precision]
    assert_fits(kernels, precision, 100)


def test_every_kernel_compiles_completely_for_blackwell_in_bf16():
    kernels = compile_for(100, "bf16", only_memory=False)["bf16"]
    assert_fits(kernels, "bf16", 100)
    assert all(kernel["registers"] > 0 for kernel in kernels)


def test_compiling_for_one_and_for_eight_ranks_covers_all_dap_sizes():
    """Only the tiles of the projection with a residual depend on the number of rows.

    A rank alone has other launches for attention than a rank of a DAP group. The blocks of sums of
    partial sums, which have no matrix product, depend on the number of programs.
    """
    config = with_evoformer_blocks(build_preset("mlperf_reference"), 1)
    kernels_of, tiles_of = {}, {}
    for size in (1, 4, 8):
        dap = counted_axis(config.parallel, size=size)
        step = MetaStep.build(config, kernels="triton", precision="bf16", dap=dap)
        launches = distinct_launches(resources.step_launches(step), every_alignment=False)
        kinds = {
            (kernel_name(kernel), tuple(sorted(options.items())))
            for kernel, _, _, options in launches
            if "partial_sums" not in kernel.fn.__module__
            and "sum_kernel" not in kernel_name(kernel)
        }
        tiles_of[size] = {kind for kind in kinds if kind[0].startswith("projected_residual.")}
        kernels_of[size] = kinds - tiles_of[size]
    assert kernels_of[4] == kernels_of[8]
    assert tiles_of[8] - tiles_of[1] and tiles_of[4] <= tiles_of[1] | tiles_of[8]
